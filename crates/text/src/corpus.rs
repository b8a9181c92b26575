//! Stories out of files, one at a time.
//!
//! | extension | a story is |
//! |---|---|
//! | `.txt` | what lies between two lines that are exactly `<|endoftext|>` (the last needs none after it) |
//! | `.jsonl`, `.ndjson` | the string under `text` in one line's JSON object |
//! | `.parquet` | one value of the string column `text` |
//!
//! Nothing is held but the story being read, and a story has at most [`MAX_STORY_BYTES`]. Empty stories are
//! skipped. A story's text is what the file says, letter for letter; only in `.txt`, where the separator's own
//! lines leave their line breaks behind, blank lines around a story are not part of it.

mod jsonl;
mod lines;
mod parquet;
mod thrift;
mod txt;

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// The line between two stories of a `.txt` corpus.
pub const SEPARATOR: &str = "<|endoftext|>";

/// A longer story is an error: most likely the separators are missing.
pub const MAX_STORY_BYTES: usize = 64 << 20;

/// A file of stories.
#[derive(Debug, Clone)]
pub struct Corpus {
    path: PathBuf,
    format: Format,
    bytes: u64,
}

#[derive(Debug, Clone, Copy)]
enum Format {
    Txt,
    Jsonl,
    Parquet,
}

impl Corpus {
    /// Tells the format by the extension and checks that the file is there.
    ///
    /// # Errors
    /// [`Error::UnknownCorpus`], [`Error::Read`].
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = fs::metadata(path).map_err(|e| Error::read(path, e))?;
        if metadata.is_dir() {
            return Err(Error::read(path, std::io::ErrorKind::IsADirectory.into()));
        }
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let format = match extension.as_deref() {
            Some("txt") => Format::Txt,
            Some("jsonl" | "ndjson") => Format::Jsonl,
            Some("parquet") => Format::Parquet,
            _ => return Err(Error::UnknownCorpus { path: path.to_owned() }),
        };
        Ok(Self { path: path.to_owned(), format, bytes: metadata.len() })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's size.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads from the beginning. Every call starts afresh.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Parquet`] if the file is damaged or has no string column `text`.
    pub fn stories(&self) -> Result<Stories> {
        let source = match self.format {
            Format::Txt => Source::Txt(txt::TxtStories::open(&self.path)?),
            Format::Jsonl => Source::Jsonl(jsonl::JsonlStories::open(&self.path)?),
            Format::Parquet => Source::Parquet(Box::new(parquet::ParquetStories::open(&self.path)?)),
        };
        Ok(Stories { source, over: false })
    }
}

/// The stories of a corpus in the order of the file, none empty. After an error there are no more.
pub struct Stories {
    source: Source,
    over: bool,
}

enum Source {
    Txt(txt::TxtStories),
    Jsonl(jsonl::JsonlStories),
    Parquet(Box<parquet::ParquetStories>),
}

impl Stories {
    /// How much of the file has been read; for parquet, the share of the rows times the file's size.
    pub fn bytes_read(&self) -> u64 {
        match &self.source {
            Source::Txt(stories) => stories.bytes_read(),
            Source::Jsonl(stories) => stories.bytes_read(),
            Source::Parquet(stories) => stories.bytes_read(),
        }
    }

    fn next_story(&mut self) -> Result<Option<String>> {
        match &mut self.source {
            Source::Txt(stories) => stories.next_story(),
            Source::Jsonl(stories) => stories.next_story(),
            Source::Parquet(stories) => stories.next_story(),
        }
    }
}

impl Iterator for Stories {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.over {
            match self.next_story() {
                Ok(Some(story)) if story.is_empty() => continue,
                Ok(Some(story)) => return Some(Ok(story)),
                Ok(None) => self.over = true,
                Err(error) => {
                    self.over = true;
                    return Some(Err(error));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
