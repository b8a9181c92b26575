//! Stories out of files, one at a time.
//!
//! | extension | a record is | its text |
//! |---|---|---|
//! | `.txt` | the file | all of it |
//! | `.jsonl`, `.ndjson` | the JSON object in a line | the string under the text column's name |
//! | `.json` | an element of an array, or objects one after the other | the same; in an array, strings too |
//! | `.csv` | a row after the header | the text column's field |
//! | `.parquet` | a row | the string column's value |
//!
//! All but parquet may be packed with gzip or Zstandard (`.gz`, `.zst`). The text column is `text`, unless
//! the caller names another.
//!
//! The rules are the same in every format:
//!
//! - A text is cut into stories at the marker `<|endoftext|>`, wherever it occurs (`marker.rs`). The spaces
//!   and tabs beside the marker and the blank lines around it belong to the marker. Blank lines at either end
//!   of a `.txt` file are dropped. CRLF is read as LF. Everything else stays as it is.
//! - A record whose text is null, missing or empty is skipped and counted. If no record has the text column,
//!   that is an error, which lists the columns that exist.
//! - Only the current record is in memory. A story has at most 64 MiB.

mod all_stories;
mod counts;
mod csv;
mod find;
mod json;
mod marker;
mod named;
mod parquet;
mod part;
mod record;
mod source;
mod thrift;
mod txt;
mod unpack;

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::fingerprint::FingerprintHasher;
use named::Named;
use part::WHOLE;
use record::CorpusRecord;
use source::{CorpusInput, TextSource};

pub(crate) use all_stories::{AllStories, Story};
pub use counts::CorpusCounts;
pub(crate) use find::is_stream;
pub(crate) use part::{Part, Piece};

/// The marker between two stories.
pub const SEPARATOR: &str = "<|endoftext|>";

/// A longer story is an error: the markers are probably missing.
pub(crate) const MAX_STORY_BYTES: usize = 64 << 20;

/// The format of a corpus file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CorpusFormat {
    /// Plain text.
    Txt,
    /// A JSON object in each line.
    Jsonl,
    /// A JSON array, or objects one after the other.
    Json,
    /// Comma-separated values with a header.
    Csv,
    /// Apache Parquet.
    Parquet,
}

impl CorpusFormat {
    /// The file extension of this format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Txt => "txt",
            Self::Jsonl => "jsonl",
            Self::Json => "json",
            Self::Csv => "csv",
            Self::Parquet => "parquet",
        }
    }
}

impl FromStr for CorpusFormat {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Ok(match name {
            "txt" => Self::Txt,
            "jsonl" | "ndjson" => Self::Jsonl,
            "json" => Self::Json,
            "csv" => Self::Csv,
            "parquet" => Self::Parquet,
            _ => return Err("say txt, jsonl, json, csv or parquet".to_owned()),
        })
    }
}

/// How the files of a corpus are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusOptions {
    /// The key or column that holds the stories.
    pub text_column: String,
    /// The format of all files. Without one, the file's name decides, and standard input is plain text.
    pub format: Option<CorpusFormat>,
}

impl Default for CorpusOptions {
    fn default() -> Self {
        Self { text_column: "text".to_owned(), format: None }
    }
}

/// A file of stories, or a stream that can be read once.
#[derive(Debug, Clone)]
pub struct Corpus {
    path: PathBuf,
    place: CorpusInput,
    format: CorpusFormat,
    text_column: String,
    bytes: u64,
}

impl Corpus {
    /// The files that `paths` name. Each path is a file, a folder (its corpus files, sorted by name), a
    /// pattern with `*`, `?`, `[…]` or `**`, or `-` for standard input.
    ///
    /// # Errors
    /// As [`Corpus::open`]; [`Error::EmptyFolder`], [`Error::MixedFolder`], [`Error::PreparedFolder`],
    /// [`Error::NoMatch`].
    pub fn find(paths: &[PathBuf], options: &CorpusOptions) -> Result<Vec<Self>> {
        find::find(paths, options)
    }

    /// One file, or `-`. Checks that it exists.
    ///
    /// # Errors
    /// [`Error::UnknownCorpus`], [`Error::Foreign`], [`Error::Read`], [`Error::ComesOnce`],
    /// [`Error::NeedsFile`].
    pub fn open(path: &Path, options: &CorpusOptions) -> Result<Self> {
        find::open(path, options)
    }

    /// The path as the caller named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds what tells whether two processes read the same.
    pub(crate) fn add_to(&self, sum: &mut FingerprintHasher) {
        let name = self.path.file_name().unwrap_or_default();
        for text in [&*name.to_string_lossy(), self.format.name(), &self.text_column] {
            sum.add_text(text);
        }
        sum.add(self.bytes);
    }

    /// The file's size; 0 for a stream, whose size is unknown.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads from the beginning. Every call begins again.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Parquet`] and [`Error::NoColumn`] if the beginning and end of a parquet file
    /// show that it cannot be read; [`Error::ComesOnce`] for a stream that was read before.
    pub fn stories(&self) -> Result<Stories> {
        self.stories_in(&WHOLE)
    }

    /// The stories of the records that begin within `bytes` of the file; see [`part`].
    pub(crate) fn stories_in(&self, bytes: &Range<u64>) -> Result<Stories> {
        let named = Named::new(&self.text_column);
        let is_whole = *bytes == WHOLE;
        let mark = if is_whole { None } else { self.mark()? };
        let source = || match mark {
            Some(mark) => {
                let cut = |at| part::cut(&self.path, at, mark);
                TextSource::within(&self.path, cut(bytes.start)?..cut(bytes.end)?)
            }
            None => TextSource::open(&self.path, &self.place),
        };
        let records = match self.format {
            CorpusFormat::Txt => Records::Txt(txt::TxtStories::new(source()?)),
            CorpusFormat::Jsonl if mark.is_some() => {
                Records::Json(json::JsonStories::of_lines(source()?, named))
            }
            CorpusFormat::Jsonl => Records::Json(json::JsonStories::new(source()?, true, named)),
            CorpusFormat::Json => Records::Json(json::JsonStories::new(source()?, false, named)),
            CorpusFormat::Csv => Records::Csv(Box::new(csv::CsvStories::new(source()?, named))),
            CorpusFormat::Parquet => {
                Records::Parquet(Box::new(parquet::ParquetStories::open(&self.path, named, bytes.clone())?))
            }
        };
        let finds_itself = mark.is_some() || self.format == CorpusFormat::Parquet;
        let kept = if finds_itself { WHOLE } else { bytes.clone() };
        Ok(Stories {
            records,
            kept,
            is_whole,
            ready: VecDeque::new(),
            counts: CorpusCounts::default(),
            over: false,
        })
    }

    /// What stands between two records, where a reader may begin after any of them.
    fn mark(&self) -> Result<Option<&'static str>> {
        let mut source = TextSource::open(&self.path, &self.place)?;
        Ok(match self.format {
            _ if source.is_packed()? => None,
            CorpusFormat::Txt => Some(SEPARATOR),
            CorpusFormat::Jsonl => {
                let mut records = json::JsonStories::new(source, true, Named::new(&self.text_column));
                records.is_lines()?.then_some("\n")
            }
            _ => None,
        })
    }

    /// The stories of the records that begin before byte `end`: for an error, which names a story by its
    /// number.
    pub(crate) fn stories_before(&self, end: u64) -> u64 {
        match end {
            0 => 0,
            end => self.stories_in(&(0..end)).map_or(0, |stories| stories.flatten().count() as u64),
        }
    }

    /// Checks the beginning of a file. A stream is not touched, because it can be read only once.
    pub(crate) fn check(&self) -> Result<()> {
        match (&self.place, self.format) {
            (CorpusInput::Stream(_), _) => Ok(()),
            (CorpusInput::File, CorpusFormat::Parquet) => self.stories().map(drop),
            (CorpusInput::File, _) => TextSource::open(&self.path, &self.place)?.is_packed().map(drop),
        }
    }

    /// From now on, keeps on disk what is read from a stream, so that it can be read again.
    pub(crate) fn keep(&self) -> Result<()> {
        let CorpusInput::Stream(stream) = &self.place else { return Ok(()) };
        let mut stream = stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        stream.keep().map_err(|e| Error::write(&std::env::temp_dir(), e))
    }
}

/// The stories of a corpus in the order of the file; none is empty. After an error the iterator ends.
pub struct Stories {
    records: Records,
    /// Records that begin at another byte are dropped.
    kept: Range<u64>,
    is_whole: bool,
    /// Stories of the last record that were not returned yet.
    ready: VecDeque<String>,
    counts: CorpusCounts,
    over: bool,
}

enum Records {
    Txt(txt::TxtStories),
    Json(json::JsonStories),
    Csv(Box<csv::CsvStories>),
    Parquet(Box<parquet::ParquetStories>),
}

impl Stories {
    /// Bytes of the file read so far, before unpacking. For parquet: the share of rows read, times the file's
    /// size.
    pub fn bytes_read(&self) -> u64 {
        match &self.records {
            Records::Txt(records) => records.bytes_read(),
            Records::Json(records) => records.bytes_read(),
            Records::Csv(records) => records.bytes_read(),
            Records::Parquet(records) => records.bytes_read(),
        }
    }

    /// The counts so far, with all stories of the current record.
    pub fn counts(&self) -> CorpusCounts {
        self.counts
    }

    /// Reads a record, and keeps it if it belongs to the part; `false` after the last one.
    fn read(&mut self) -> Result<bool> {
        let begins = self.bytes_read();
        if begins >= self.kept.end {
            return Ok(false);
        }
        if begins < self.kept.start {
            return self.pass();
        }
        self.read_record()
    }

    /// Drops a record.
    fn pass(&mut self) -> Result<bool> {
        if let Records::Json(records) = &mut self.records {
            return records.pass();
        }
        let (ready, counts) = (VecDeque::new(), self.counts);
        let more = self.read_record();
        (self.ready, self.counts) = (ready, counts);
        more
    }

    fn read_record(&mut self) -> Result<bool> {
        let record = match &mut self.records {
            Records::Txt(text) => return text.read(&mut self.ready, &mut self.counts),
            Records::Json(records) => match records.next_record()? {
                // Whether another part has the column is not known here.
                None if !self.is_whole => return Ok(false),
                None => return records.check().map(|()| false),
                record => record,
            },
            Records::Csv(records) => records.next_record()?,
            Records::Parquet(records) => records.next_record()?,
        };
        match record {
            None => return Ok(false),
            Some(CorpusRecord::Missing { .. }) => self.counts.skipped += 1,
            Some(CorpusRecord::Text(text)) => {
                marker::cut(&text, &mut self.ready, &mut self.counts);
                // The record held only markers.
                self.counts.skipped += u64::from(self.ready.is_empty());
            }
        }
        Ok(true)
    }
}

impl Iterator for Stories {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(story) = self.ready.pop_front() {
                return Some(Ok(story));
            }
            if self.over {
                return None;
            }
            match self.read() {
                Ok(more) => self.over = !more,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
