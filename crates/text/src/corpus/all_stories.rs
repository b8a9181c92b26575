//! The stories of several files, one file after the other.

use std::path::Path;

use super::{Corpus, CorpusCounts, Stories};
use crate::error::{Error, Result};

/// A story and where it came from.
pub(crate) struct Story<'c> {
    pub(crate) text: String,
    /// The file it is from.
    pub(crate) path: &'c Path,
    /// Its number in that file, counted from 1.
    pub(crate) number: u64,
}

/// The stories of several files, in the order of the files. A file without a story is an error. After an
/// error the iterator ends.
pub(crate) struct AllStories<'c> {
    /// Files that are not read to their end.
    rest: &'c [Corpus],
    /// The open reader of the first of them.
    open: Option<Stories>,
    /// Stories read from the first of them.
    stories: u64,
    /// The total size of the files read before.
    bytes_before: u64,
    /// The counts of the files read before.
    counts_before: CorpusCounts,
}

/// The total size of these files, as far as it is known.
pub(crate) fn bytes(corpora: &[Corpus]) -> u64 {
    corpora.iter().map(Corpus::bytes).sum()
}

impl<'c> AllStories<'c> {
    pub(crate) fn new(corpora: &'c [Corpus]) -> Self {
        let counts_before = CorpusCounts::default();
        Self { rest: corpora, open: None, stories: 0, bytes_before: 0, counts_before }
    }

    /// Bytes read from all files, as [`Stories::bytes_read`] counts them.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_before + self.open.as_ref().map_or(0, Stories::bytes_read)
    }

    /// The counts of all files so far.
    pub(crate) fn counts(&self) -> CorpusCounts {
        self.open.as_ref().map_or(self.counts_before, |stories| self.counts_before + stories.counts())
    }

    fn next_story(&mut self) -> Result<Option<Story<'c>>> {
        while let Some((corpus, rest)) = self.rest.split_first() {
            let stories = match &mut self.open {
                Some(stories) => stories,
                None => self.open.insert(corpus.stories()?),
            };
            if let Some(story) = stories.next() {
                self.stories += 1;
                return Ok(Some(Story { text: story?, path: corpus.path(), number: self.stories }));
            }
            if self.stories == 0 {
                return Err(Error::NoStories { path: corpus.path().to_owned() });
            }
            self.counts_before = self.counts();
            (self.rest, self.open, self.stories) = (rest, None, 0);
            self.bytes_before += corpus.bytes();
        }
        Ok(None)
    }
}

impl<'c> Iterator for AllStories<'c> {
    type Item = Result<Story<'c>>;

    fn next(&mut self) -> Option<Self::Item> {
        let story = self.next_story();
        if story.is_err() {
            self.rest = &[];
        }
        story.transpose()
    }
}
