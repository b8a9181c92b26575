//! Lines of a file of any size, none longer than a limit, with their place in it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

const BUFFER_BYTES: usize = 256 << 10;

pub(super) struct Lines {
    reader: BufReader<File>,
    path: PathBuf,
    /// Bytes read.
    pub(super) offset: u64,
    /// Lines read.
    pub(super) number: u64,
}

impl Lines {
    /// Opens `path` and steps over a byte order mark.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::read(path, e))?;
        let mut lines = Self {
            reader: BufReader::with_capacity(BUFFER_BYTES, file),
            path: path.to_owned(),
            offset: 0,
            number: 0,
        };
        let start = lines.reader.fill_buf().map_err(|e| Error::read(path, e))?;
        if start.starts_with("\u{FEFF}".as_bytes()) {
            lines.reader.consume(3);
            lines.offset = 3;
        }
        Ok(lines)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends the next line to `buffer`, line break included; `false` at the end of the file. Stops with an
    /// error once `buffer` is longer than `limit`.
    pub(super) fn append(&mut self, buffer: &mut Vec<u8>, limit: usize) -> Result<bool> {
        let room = limit.saturating_sub(buffer.len()) as u64 + 1;
        let read = (&mut self.reader)
            .take(room)
            .read_until(b'\n', buffer)
            .map_err(|e| Error::read(&self.path, e))?;
        self.offset += read as u64;
        self.number += u64::from(read > 0);
        if buffer.len() > limit {
            let place = format!("line {}", self.number);
            return Err(Error::StoryTooLong { path: self.path.clone(), place, limit });
        }
        Ok(read > 0)
    }
}
