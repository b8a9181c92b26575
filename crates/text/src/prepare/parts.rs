//! The tokens that a process has made of its part of a split, in a file that waits for the first process.
//!
//! ```text
//! for each chunk:
//!   stories  u64
//!   lengths  2 × stories u64   tokens and UTF-8 bytes of each story
//!   ids      of 2 or 4 bytes, as in a shard
//! ```
//!
//! All numbers are little-endian. The file's length and checksum go another way, from process to process: so
//! the reader knows that it reads what the writer wrote, also on a disk that both see through a network.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use offramp_files::SharedFolder;

use super::crew::CrewError;
use super::encode::{Sink, StoryChunk};
use crate::error::{Error, Result};
use crate::shard::{pack, unpack};

const BUFFER_BYTES: usize = 1 << 20;
/// Bytes of a number.
const NUMBER: usize = 8;

/// What the reader of a part must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PartSeal {
    pub(super) bytes: u64,
    pub(super) crc: u32,
}

/// The file of a rank's part of a split.
pub(super) fn name(split: &str, rank: usize) -> String {
    format!("{split}-part-{rank}")
}

/// Writes a part.
pub(super) struct PartWriter {
    path: PathBuf,
    file: BufWriter<File>,
    /// Bytes of an id.
    width: usize,
    seal: PartSeal,
    crc: Hasher,
    tokens: u64,
    bytes: Vec<u8>,
}

impl PartWriter {
    pub(super) fn create(folder: &SharedFolder, name: &str, width: usize) -> Result<Self> {
        let path = folder.path().join(name);
        let file = folder.create_file(name).map_err(|e| Error::write(&path, e))?;
        Ok(Self {
            path,
            file: BufWriter::with_capacity(BUFFER_BYTES, file),
            width,
            seal: PartSeal { bytes: 0, crc: 0 },
            crc: Hasher::new(),
            tokens: 0,
            bytes: Vec::new(),
        })
    }

    /// Hands the last bytes to the system. Nothing is flushed to the disk: the file does not outlive the
    /// processes, and the seal shows what a disk has lost.
    pub(super) fn finish(mut self) -> Result<PartSeal> {
        self.file.flush().map_err(|e| Error::write(&self.path, e))?;
        Ok(PartSeal { crc: self.crc.finalize(), ..self.seal })
    }
}

impl Sink for PartWriter {
    fn write(&mut self, chunk: &StoryChunk<'_>) -> Result<u64> {
        let lengths = chunk.lengths();
        self.bytes.clear();
        self.bytes.extend((lengths.len() as u64).to_le_bytes());
        for length in lengths.flat_map(|(tokens, utf8_bytes)| [tokens, utf8_bytes]) {
            self.bytes.extend((length as u64).to_le_bytes());
        }
        pack(chunk.tokens(), self.width, &mut self.bytes);
        self.crc.update(&self.bytes);
        self.seal.bytes += self.bytes.len() as u64;
        self.file.write_all(&self.bytes).map_err(|e| Error::write(&self.path, e))?;
        self.tokens += chunk.tokens().len() as u64;
        Ok(self.tokens)
    }
}

/// Reads a part.
pub(super) struct PartReader {
    path: PathBuf,
    file: BufReader<File>,
    width: usize,
    /// Bytes that are still to come.
    rest: u64,
    crc: Hasher,
    expected: PartSeal,
}

/// The stories of a chunk.
pub(super) struct PartChunk {
    pub(super) tokens: Vec<u32>,
    /// Tokens and UTF-8 bytes of each story.
    pub(super) lengths: Vec<(usize, usize)>,
    /// Bytes in the file.
    pub(super) bytes: u64,
}

impl PartReader {
    pub(super) fn open(path: &Path, width: usize, expected: PartSeal) -> Result<Self> {
        let io = |e| Error::read(path, e);
        let file = File::open(path).map_err(io)?;
        let this = Self {
            path: path.to_owned(),
            rest: file.metadata().map_err(io)?.len(),
            file: BufReader::with_capacity(BUFFER_BYTES, file),
            width,
            crc: Hasher::new(),
            expected,
        };
        if this.rest == expected.bytes { Ok(this) } else { Err(this.changed()) }
    }

    fn changed(&self) -> Error {
        CrewError::Changed { path: self.path.clone() }.into()
    }

    /// Reads so many numbers or ids, if the file has them.
    fn take(&mut self, count: u64, bytes: usize) -> Result<Vec<u8>> {
        let Some(length) = count.checked_mul(bytes as u64).filter(|&length| length <= self.rest) else {
            return Err(self.changed());
        };
        let mut taken = vec![0; length as usize];
        match self.file.read_exact(&mut taken) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Err(self.changed()),
            read => read.map_err(|e| Error::read(&self.path, e))?,
        }
        self.rest -= length;
        self.crc.update(&taken);
        Ok(taken)
    }

    fn next_chunk(&mut self) -> Result<Option<PartChunk>> {
        if self.rest == 0 {
            let is_whole = self.crc.clone().finalize() == self.expected.crc;
            return if is_whole { Ok(None) } else { Err(self.changed()) };
        }
        let before = self.rest;
        let number = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, &byte| sum << 8 | u64::from(byte));
        let stories = number(&self.take(1, NUMBER)?);
        let lengths = self.take(stories, 2 * NUMBER)?;
        let mut tokens = 0u64;
        let mut length = |pair: &[u8]| {
            let (count, utf8_bytes) = pair.split_at(NUMBER);
            tokens = tokens.checked_add(number(count))?;
            Some((usize::try_from(number(count)).ok()?, usize::try_from(number(utf8_bytes)).ok()?))
        };
        let lengths: Option<Vec<_>> = lengths.chunks_exact(2 * NUMBER).map(&mut length).collect();
        let Some(lengths) = lengths else { return Err(self.changed()) };
        let ids = self.take(tokens, self.width)?;
        let mut tokens = vec![0; ids.len() / self.width];
        unpack(&ids, self.width, &mut tokens);
        Ok(Some(PartChunk { tokens, lengths, bytes: before - self.rest }))
    }
}

impl Iterator for PartReader {
    type Item = Result<PartChunk>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_chunk().transpose()
    }
}
