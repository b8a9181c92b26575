//! The stories of several files, one after the other as one row.

use std::path::Path;

use super::{Corpus, Found, Stories};
use crate::error::{Error, Result};

/// A story and where it stands.
pub(crate) struct Story<'c> {
    pub(crate) text: String,
    /// The file it is from.
    pub(crate) path: &'c Path,
    /// Its number in that file, counted from 1.
    pub(crate) number: u64,
}

/// The stories of several files in the order of the files. A file without any is an error; after an error there are no
/// more.
pub(crate) struct Row<'c> {
    /// Those not yet read to their end.
    rest: &'c [Corpus],
    /// The first of them, once it is open.
    open: Option<Stories>,
    /// Stories read from it.
    stories: u64,
    /// Sizes of the files before it.
    bytes_before: u64,
    /// What was found in them.
    found_before: Found,
}

/// The most there are to read, as far as it is known.
pub(crate) fn bytes(corpora: &[Corpus]) -> u64 {
    corpora.iter().map(Corpus::bytes).sum()
}

impl<'c> Row<'c> {
    pub(crate) fn new(corpora: &'c [Corpus]) -> Self {
        let found_before = Found::default();
        Self { rest: corpora, open: None, stories: 0, bytes_before: 0, found_before }
    }

    /// How much of all files has been read, as [`Stories::bytes_read`] counts it.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_before + self.open.as_ref().map_or(0, Stories::bytes_read)
    }

    /// What has been found in all files so far.
    pub(crate) fn found(&self) -> Found {
        self.open.as_ref().map_or(self.found_before, |stories| self.found_before + stories.found())
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
            self.found_before = self.found();
            (self.rest, self.open, self.stories) = (rest, None, 0);
            self.bytes_before += corpus.bytes();
        }
        Ok(None)
    }
}

impl<'c> Iterator for Row<'c> {
    type Item = Result<Story<'c>>;

    fn next(&mut self) -> Option<Self::Item> {
        let story = self.next_story();
        if story.is_err() {
            self.rest = &[];
        }
        story.transpose()
    }
}
