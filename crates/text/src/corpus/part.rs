//! What one of several processes reads of a corpus.
//!
//! The bytes of all files, one file after the other, are cut into as many parts as there are processes. A
//! record belongs to the part in which it begins. Where a process finds the beginning of its part depends on
//! the file:
//!
//! | file | its part begins |
//! |---|---|
//! | plain text, not packed | after the next marker |
//! | a JSON object per line, not packed | after the next line end |
//! | parquet | in a row group; those before it are not read |
//! | all others | after the records before it, which are read and dropped |
//!
//! So every record is read by one process, whatever their number, and no process asks another.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use super::{Corpus, Stories};
use crate::error::{Error, Result};

/// A range that is the whole file, whatever its length.
pub(super) const WHOLE: Range<u64> = 0..u64::MAX;
/// Bytes that are searched at a time.
const SEARCHED: u64 = 64 << 10;

/// One of several equal parts of a corpus.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    /// Its number, from 0.
    pub(crate) rank: usize,
    /// How many there are.
    pub(crate) of: usize,
}

impl Part {
    pub(crate) const ALL: Self = Self { rank: 0, of: 1 };

    /// The bytes of the part, if the corpus has `total`. The last part has no end.
    fn bytes(self, total: u64) -> Range<u64> {
        let cut = |rank: usize| (u128::from(total) * rank as u128 / self.of as u128) as u64;
        cut(self.rank)..if self.rank + 1 == self.of { u64::MAX } else { cut(self.rank + 1) }
    }

    /// The files, and what of each, that belong to the part.
    pub(crate) fn pieces(self, corpora: &[Corpus]) -> Vec<Piece<'_>> {
        let part = self.bytes(corpora.iter().map(Corpus::bytes).sum());
        let mut end = 0;
        let mut pieces = Vec::new();
        for (file, corpus) in corpora.iter().enumerate() {
            let start = end;
            end += corpus.bytes();
            let begins_here = part.contains(&start);
            if begins_here || (start..end).contains(&part.start) && !part.is_empty() {
                let from = part.start.saturating_sub(start);
                let to = if part.end < end { part.end - start } else { WHOLE.end };
                pieces.push(Piece { corpus, file, bytes: from..to });
            }
        }
        pieces
    }
}

/// A file of a corpus, or what a part has of it.
#[derive(Debug, Clone)]
pub(crate) struct Piece<'c> {
    pub(super) corpus: &'c Corpus,
    /// The file's number in the corpus, from 0.
    pub(super) file: usize,
    bytes: Range<u64>,
}

impl Piece<'_> {
    pub(super) fn stories(&self) -> Result<Stories> {
        self.corpus.stories_in(&self.bytes)
    }

    pub(super) fn is_whole(&self) -> bool {
        self.bytes == WHOLE
    }

    pub(super) fn start(&self) -> u64 {
        self.bytes.start
    }

    /// Its size; 0 for a stream, whose size is unknown.
    pub(crate) fn len(&self) -> u64 {
        self.bytes.end.min(self.corpus.bytes()).saturating_sub(self.bytes.start)
    }
}

/// The first place from `at` on where a `mark` has just ended: 0 stays 0, and without a mark it is the end of
/// the file.
pub(super) fn cut(path: &Path, at: u64, mark: &str) -> Result<u64> {
    if at == 0 || at == WHOLE.end {
        return Ok(at);
    }
    // The mark may end exactly here.
    let mut place = at.saturating_sub(mark.len() as u64);
    let mut search = || {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(place))?;
        let mut bytes = BufReader::with_capacity(SEARCHED as usize, file);
        let mut seen = Vec::new();
        loop {
            let read = (&mut bytes).take(SEARCHED).read_until(mark.as_bytes()[mark.len() - 1], &mut seen)?;
            place += read as u64;
            if read == 0 || seen.ends_with(mark.as_bytes()) && place >= at {
                return Ok(place);
            }
            seen.drain(..seen.len().saturating_sub(mark.len()));
        }
    };
    search().map_err(|e| Error::read(path, e))
}
