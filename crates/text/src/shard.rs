//! Token shards: a header, then ids of 2 or 4 bytes. Everything is little-endian.
//!
//! ```text
//!  0  magic        8 bytes  "offrampT"
//!  8  version      u32      1
//! 12  width        u32      2 if the vocabulary has at most 65,536 ids, else 4
//! 16  vocab_size   u32
//! 20  payload_crc  u32      CRC-32 (IEEE) of the ids' bytes
//! 24  tokens       u64
//! 32  utf8_bytes   u64      bytes of the stories in this shard
//! 40  header_crc   u32      CRC-32 of the 40 bytes before it
//! 44  ids          tokens × width bytes, to the end of the file
//! ```
//!
//! A story is never divided between two shards; the end-of-text token before it lies in its shard.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crc32fast::Hasher;
use offramp_files::{Finished, Unfinished};

use crate::error::{Error, Result};

const MAGIC: &[u8; 8] = b"offrampT";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 44;
const BUFFER_BYTES: usize = 1 << 20;

/// What a shard says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) vocab_size: u32,
    pub(crate) tokens: u64,
    pub(crate) utf8_bytes: u64,
    payload_crc: u32,
}

impl Header {
    /// Bytes of an id.
    fn width(&self) -> usize {
        if self.vocab_size <= 1 << 16 { 2 } else { 4 }
    }

    fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(self.width() as u32).to_le_bytes());
        bytes[16..20].copy_from_slice(&self.vocab_size.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.tokens.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.utf8_bytes.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..40]);
        bytes[40..44].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `Err` says what is wrong.
    fn from_bytes(bytes: &[u8; HEADER_BYTES]) -> std::result::Result<Self, String> {
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if &bytes[0..8] != MAGIC {
            return Err("not a token shard".into());
        }
        if u32_at(8) != VERSION {
            return Err(format!("a token shard of version {}, and this program reads {VERSION}", u32_at(8)));
        }
        if u32_at(40) != crc32fast::hash(&bytes[..40]) {
            return Err("its header does not match its checksum".into());
        }
        let header = Header {
            vocab_size: u32_at(16),
            payload_crc: u32_at(20),
            tokens: u64_at(24),
            utf8_bytes: u64_at(32),
        };
        if u32_at(12) as usize != header.width() || header.vocab_size == 0 {
            return Err(format!("ids of {} bytes and a vocabulary of {}", u32_at(12), header.vocab_size));
        }
        Ok(header)
    }
}

/// Writes one shard beside its target.
pub(crate) struct ShardWriter {
    file: BufWriter<Unfinished>,
    header: Header,
    crc: Hasher,
    bytes: Vec<u8>,
}

impl ShardWriter {
    pub(crate) fn create(target: &Path, vocab_size: usize) -> Result<Self> {
        let vocab_size = u32::try_from(vocab_size)
            .map_err(|_| Error::tokenizer(format!("a vocabulary of {vocab_size} is too large")))?;
        let header = Header { vocab_size, tokens: 0, utf8_bytes: 0, payload_crc: 0 };
        let unfinished = Unfinished::create(target).map_err(|e| Error::write(target, e))?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, unfinished);
        // Room for the header, which is known last.
        file.write_all(&[0; HEADER_BYTES]).map_err(|e| Error::write(target, e))?;
        Ok(Self { file, header, crc: Hasher::new(), bytes: Vec::new() })
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// Appends ids below the vocabulary's size, which stand for `utf8_bytes` of stories.
    pub(crate) fn write(&mut self, tokens: &[u32], utf8_bytes: u64) -> Result<()> {
        self.bytes.clear();
        if self.header.width() == 2 {
            self.bytes.extend(tokens.iter().flat_map(|&id| (id as u16).to_le_bytes()));
        } else {
            self.bytes.extend(tokens.iter().flat_map(|&id| id.to_le_bytes()));
        }
        self.crc.update(&self.bytes);
        self.header.tokens += tokens.len() as u64;
        self.header.utf8_bytes += utf8_bytes;
        self.file.write_all(&self.bytes).map_err(|e| Error::write(self.file.get_ref().target(), e))
    }

    pub(crate) fn finish(self) -> Result<Finished> {
        let Self { file, mut header, crc, .. } = self;
        let target = file.get_ref().target().to_owned();
        let fault = |e: std::io::Error| Error::write(&target, e);
        header.payload_crc = crc.finalize();
        let mut unfinished = file.into_inner().map_err(|e| fault(e.into_error()))?;
        unfinished.seek(SeekFrom::Start(0)).map_err(fault)?;
        unfinished.write_all(&header.to_bytes()).map_err(fault)?;
        unfinished.finish().map_err(fault)
    }
}

/// A shard that has been checked from end to end.
#[derive(Debug)]
pub(crate) struct ShardReader {
    path: PathBuf,
    header: Header,
    file: Mutex<File>,
}

impl ShardReader {
    /// Checks magic, version, length and checksum.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::read(path, e);
        let fault = |reason: String| Error::Shard { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut header = [0; HEADER_BYTES];
        if length < HEADER_BYTES as u64 {
            return Err(fault(format!("{length} bytes are fewer than a header")));
        }
        file.read_exact(&mut header).map_err(io)?;
        let header = Header::from_bytes(&header).map_err(fault)?;
        let expected =
            header.tokens.checked_mul(header.width() as u64).and_then(|n| n.checked_add(HEADER_BYTES as u64));
        if expected != Some(length) {
            return Err(fault(format!("{} tokens do not make a file of {length} bytes", header.tokens)));
        }
        if crc_of_rest(&mut file).map_err(io)? != header.payload_crc {
            return Err(fault("its tokens do not match their checksum".into()));
        }
        Ok(Self { path: path.to_owned(), header, file: Mutex::new(file) })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Reads `out.len()` ids from `start` on; the range lies within the shard.
    pub(crate) fn read(&self, start: u64, out: &mut [u32]) -> Result<()> {
        let width = self.header.width();
        let mut bytes = vec![0; out.len() * width];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(HEADER_BYTES as u64 + start * width as u64))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|e| Error::read(&self.path, e))?;
        }
        for (id, bytes) in out.iter_mut().zip(bytes.chunks_exact(width)) {
            *id = match *bytes {
                [a, b] => u32::from(u16::from_le_bytes([a, b])),
                [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
                _ => unreachable!("a width is 2 or 4"),
            };
        }
        check_ids(out, start, self.header.vocab_size as usize, || self.path.display().to_string())
    }
}

/// Refuses ids at or beyond `vocab_size`; `start` is the position of the first.
pub(crate) fn check_ids(
    ids: &[u32],
    start: u64,
    vocab_size: usize,
    origin: impl FnOnce() -> String,
) -> Result<()> {
    match ids.iter().position(|&id| id as usize >= vocab_size) {
        None => Ok(()),
        Some(at) => {
            let (id, position) = (ids[at], start + at as u64);
            Err(Error::TokenBeyondVocabulary { origin: origin(), id, position, vocab_size })
        }
    }
}

fn crc_of_rest(file: &mut File) -> std::io::Result<u32> {
    let mut crc = Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crc.finalize()),
            n => crc.update(&buffer[..n]),
        }
    }
}

#[cfg(test)]
mod tests;
