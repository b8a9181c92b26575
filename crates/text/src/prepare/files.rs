//! The files of a split, read one after the other as one row of stories.

use std::path::Path;

use crate::corpus::{Corpus, Stories};
use crate::error::{Error, Result};

/// A story and where it stands.
pub(super) struct Story<'c> {
    pub(super) text: String,
    /// The file it is from.
    pub(super) path: &'c Path,
    /// Its number in that file, counted from 1.
    pub(super) number: u64,
}

/// The stories of several files in the order of the files. A file without any is an error; after an error there
/// are no more.
pub(super) struct Files<'c> {
    /// Those not yet read to their end.
    rest: &'c [Corpus],
    /// The first of them, once it is open.
    open: Option<Stories>,
    /// Stories read from it.
    stories: u64,
    /// Sizes of the files before it.
    bytes_before: u64,
}

/// The most there are to read.
pub(super) fn bytes(corpora: &[Corpus]) -> u64 {
    corpora.iter().map(Corpus::bytes).sum()
}

impl<'c> Files<'c> {
    pub(super) fn new(corpora: &'c [Corpus]) -> Self {
        Self { rest: corpora, open: None, stories: 0, bytes_before: 0 }
    }

    /// How much of all files has been read, as [`Stories::bytes_read`] counts it.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_before + self.open.as_ref().map_or(0, Stories::bytes_read)
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
            (self.rest, self.open, self.stories) = (rest, None, 0);
            self.bytes_before += corpus.bytes();
        }
        Ok(None)
    }
}

impl<'c> Iterator for Files<'c> {
    type Item = Result<Story<'c>>;

    fn next(&mut self) -> Option<Self::Item> {
        let story = self.next_story();
        if story.is_err() {
            self.rest = &[];
        }
        story.transpose()
    }
}
