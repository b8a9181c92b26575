//! The stories of several files, one file after the other.

use std::collections::VecDeque;
use std::path::Path;

use super::{Corpus, CorpusCounts, Part, Piece, Stories};
use crate::error::{Error, Result};

/// A story and where it came from.
pub(crate) struct Story<'c> {
    pub(crate) text: String,
    corpus: &'c Corpus,
    /// The place in it where the reading began.
    start: u64,
    /// Its number since then, counted from 1.
    number: u64,
}

impl<'c> Story<'c> {
    /// The file it is from.
    pub(crate) fn path(&self) -> &'c Path {
        self.corpus.path()
    }

    /// Its number in that file, counted from 1. Where the file was read from a later place on, those before
    /// are counted now.
    pub(crate) fn number(&self) -> u64 {
        self.corpus.stories_before(self.start) + self.number
    }
}

/// The stories of several files, in the order of the files. A file without a story is an error. After an
/// error the iterator ends.
pub(crate) struct AllStories<'c> {
    /// Files that are not read to their end.
    rest: VecDeque<Piece<'c>>,
    /// The open reader of the first of them.
    open: Option<Stories>,
    /// Stories read from the first of them.
    stories: u64,
    /// The total size of the files read before.
    bytes_before: u64,
    /// The counts of the files read before.
    counts_before: CorpusCounts,
    /// The number of stories in each file of which others read a part too.
    shared: Vec<(usize, u64)>,
}

impl<'c> AllStories<'c> {
    pub(crate) fn new(corpora: &'c [Corpus]) -> Self {
        Self::of(Part::ALL.pieces(corpora))
    }

    pub(crate) fn of(pieces: Vec<Piece<'c>>) -> Self {
        let counts_before = CorpusCounts::default();
        Self {
            rest: pieces.into(),
            open: None,
            stories: 0,
            bytes_before: 0,
            counts_before,
            shared: Vec::new(),
        }
    }

    /// Bytes read from all files, as [`Stories::bytes_read`] counts them.
    pub(crate) fn bytes_read(&self) -> u64 {
        let of_piece = |(piece, stories): (&Piece<'_>, &Stories)| match piece.is_whole() {
            true => stories.bytes_read(),
            false => stories.bytes_read().saturating_sub(piece.start()).min(piece.len()),
        };
        self.bytes_before + self.rest.front().zip(self.open.as_ref()).map_or(0, of_piece)
    }

    /// The counts of all files so far.
    pub(crate) fn counts(&self) -> CorpusCounts {
        self.open.as_ref().map_or(self.counts_before, |stories| self.counts_before + stories.counts())
    }

    /// The files of which others read a part too, by their number, and how many stories were found in each.
    pub(crate) fn shared(&self) -> &[(usize, u64)] {
        &self.shared
    }

    fn next_story(&mut self) -> Result<Option<Story<'c>>> {
        while let Some(piece) = self.rest.front() {
            let stories = match &mut self.open {
                Some(stories) => stories,
                None => self.open.insert(piece.stories()?),
            };
            let (corpus, start) = (piece.corpus, piece.start());
            if let Some(story) = stories.next() {
                self.stories += 1;
                return Ok(Some(Story { text: story?, corpus, start, number: self.stories }));
            }
            match (piece.is_whole(), self.stories) {
                (true, 0) => return Err(Error::NoStories { path: corpus.path().to_owned() }),
                (true, _) => {}
                (false, stories) => self.shared.push((piece.file, stories)),
            }
            self.bytes_before += piece.len();
            self.counts_before = self.counts();
            (self.open, self.stories) = (None, 0);
            self.rest.pop_front();
        }
        Ok(None)
    }
}

impl<'c> Iterator for AllStories<'c> {
    type Item = Result<Story<'c>>;

    fn next(&mut self) -> Option<Self::Item> {
        let story = self.next_story();
        if story.is_err() {
            self.rest.clear();
        }
        story.transpose()
    }
}
