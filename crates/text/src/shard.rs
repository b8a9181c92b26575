//! Token shards: a header, then ids of 2 or 4 bytes. Everything is little-endian.
//!
//! ```text
//!  0  magic        8 bytes  "offrampT"
//!  8  version      u32      2
//! 12  width        u32      2 if the vocabulary has at most 65,536 ids, else 4
//! 16  vocab_size   u32
//! 20  payload_crc  u32      CRC-32 (IEEE) of the ids' bytes
//! 24  tokens       u64
//! 32  utf8_bytes   u64      bytes of the stories in this shard
//! 40  tokenizer    u64      fingerprint of the tokenizer that made the ids
//! 48  split        u64      fingerprint of the split's ids, up to the end of this shard
//! 56  header_crc   u32      CRC-32 of the 56 bytes before it
//! 60  ids          tokens × width bytes, to the end of the file
//! ```
//!
//! Version 1 has no fingerprints: its header ends with the CRC at byte 40. It is still read, without a
//! comparison of fingerprints.
//!
//! A story is never divided between two shards. The end-of-text token before a story lies in the story's
//! shard.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crc32fast::Hasher;
use offramp_files::{Finished, Unfinished};

use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};

const MAGIC: &[u8; 8] = b"offrampT";
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 60;
/// The version without fingerprints.
const OLD_VERSION: u32 = 1;
const OLD_HEADER_BYTES: usize = 44;
const BUFFER_BYTES: usize = 1 << 20;
/// The extension of a shard's name, with its dot.
pub(crate) const EXTENSION: &str = ".tokens";

/// Whether a folder holds shards.
pub(crate) fn are_in(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().ends_with(EXTENSION))
}

/// The header of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) vocab_size: u32,
    pub(crate) tokens: u64,
    pub(crate) utf8_bytes: u64,
    /// `None` in files of version 1.
    pub(crate) prints: Option<Prints>,
    payload_crc: u32,
}

/// The fingerprints of a shard: its tokenizer and its ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Prints {
    pub(crate) tokenizer: Fingerprint,
    /// The split's ids, up to the end of the shard.
    pub(crate) split: Fingerprint,
}

impl Header {
    fn bytes(&self) -> usize {
        if self.prints.is_some() { HEADER_BYTES } else { OLD_HEADER_BYTES }
    }

    fn width(&self) -> usize {
        width(self.vocab_size as usize)
    }

    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        let version = if self.prints.is_some() { VERSION } else { OLD_VERSION };
        for number in [version, self.width() as u32, self.vocab_size, self.payload_crc] {
            bytes.extend(number.to_le_bytes());
        }
        let prints = self.prints.iter().flat_map(|prints| [prints.tokenizer.0, prints.split.0]);
        for number in [self.tokens, self.utf8_bytes].into_iter().chain(prints) {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        bytes
    }

    /// `bytes` are the first of the file: a whole header, or all there are. `Err` says what is wrong.
    fn from_bytes(bytes: &[u8]) -> std::result::Result<Self, String> {
        let short = || format!("{} bytes are fewer than a header", bytes.len());
        let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        if bytes.len() < OLD_HEADER_BYTES {
            return Err(short());
        }
        if &bytes[0..8] != MAGIC {
            return Err("not a token shard".into());
        }
        let crc_at = match u32_at(8) {
            OLD_VERSION => OLD_HEADER_BYTES - 4,
            VERSION => HEADER_BYTES - 4,
            other => {
                return Err(format!("a token shard of version {other}, and this program reads {VERSION}"));
            }
        };
        if bytes.len() < crc_at + 4 {
            return Err(short());
        }
        if u32_at(crc_at) != crc32fast::hash(&bytes[..crc_at]) {
            return Err("its header does not match its checksum".into());
        }
        let prints = || Prints { tokenizer: Fingerprint(u64_at(40)), split: Fingerprint(u64_at(48)) };
        let header = Header {
            vocab_size: u32_at(16),
            payload_crc: u32_at(20),
            tokens: u64_at(24),
            utf8_bytes: u64_at(32),
            prints: (u32_at(8) == VERSION).then(prints),
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
    tokenizer: Fingerprint,
    split: FingerprintHasher,
    crc: Hasher,
    bytes: Vec<u8>,
}

impl ShardWriter {
    /// Begins an empty file. `split` is the sum of the ids of the split's shards before this one.
    pub(crate) fn create(
        unfinished: Unfinished,
        vocab_size: usize,
        tokenizer: Fingerprint,
        split: FingerprintHasher,
    ) -> Result<Self> {
        let vocab_size = u32::try_from(vocab_size)
            .map_err(|_| Error::tokenizer(format!("a vocabulary of {vocab_size} is too large")))?;
        let header = Header { vocab_size, tokens: 0, utf8_bytes: 0, prints: None, payload_crc: 0 };
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, unfinished);
        // Space for the header, which is known last.
        file.write_all(&[0; HEADER_BYTES]).map_err(|e| Error::write(file.get_ref().target(), e))?;
        Ok(Self { file, header, tokenizer, split, crc: Hasher::new(), bytes: Vec::new() })
    }

    /// The sum of the split's ids so far.
    pub(crate) fn split(&self) -> FingerprintHasher {
        self.split
    }

    pub(crate) fn tokens(&self) -> u64 {
        self.header.tokens
    }

    /// Appends ids below the vocabulary's size. Their stories have `utf8_bytes`.
    pub(crate) fn write(&mut self, tokens: &[u32], utf8_bytes: u64) -> Result<()> {
        self.bytes.clear();
        pack(tokens, self.header.width(), &mut self.bytes);
        self.crc.update(&self.bytes);
        self.split.add_ids(tokens);
        self.header.tokens += tokens.len() as u64;
        self.header.utf8_bytes += utf8_bytes;
        self.file.write_all(&self.bytes).map_err(|e| Error::write(self.file.get_ref().target(), e))
    }

    pub(crate) fn finish(self) -> Result<Finished> {
        let Self { file, mut header, tokenizer, split, crc, .. } = self;
        header.prints = Some(Prints { tokenizer, split: split.fingerprint() });
        let target = file.get_ref().target().to_owned();
        let fault = |e: std::io::Error| Error::write(&target, e);
        header.payload_crc = crc.finalize();
        let mut unfinished = file.into_inner().map_err(|e| fault(e.into_error()))?;
        unfinished.seek(SeekFrom::Start(0)).map_err(fault)?;
        unfinished.write_all(&header.to_bytes()).map_err(fault)?;
        unfinished.finish().map_err(fault)
    }
}

/// A shard whose checksums were verified.
#[derive(Debug)]
pub(crate) struct ShardReader {
    path: PathBuf,
    header: Header,
    file: Mutex<File>,
}

impl ShardReader {
    /// Checks magic, version, length and checksums. `split` is the sum of the ids of the shards before this
    /// one; this shard's ids are added to it.
    pub(crate) fn open(path: &Path, split: &mut FingerprintHasher) -> Result<Self> {
        let io = |e| Error::read(path, e);
        let fault = |reason: String| Error::Shard { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut header = Vec::with_capacity(HEADER_BYTES);
        Read::by_ref(&mut file).take(HEADER_BYTES as u64).read_to_end(&mut header).map_err(io)?;
        let header = Header::from_bytes(&header).map_err(fault)?;
        let bytes = header.tokens.checked_mul(header.width() as u64);
        if bytes.and_then(|n| n.checked_add(header.bytes() as u64)) != Some(length) {
            return Err(fault(format!("{} tokens do not make a file of {length} bytes", header.tokens)));
        }
        file.seek(SeekFrom::Start(header.bytes() as u64)).map_err(io)?;
        if sum_up(&mut file, header.width(), split).map_err(io)? != header.payload_crc {
            return Err(fault("its tokens do not match their checksum".into()));
        }
        if header.prints.is_some_and(|prints| prints.split != split.fingerprint()) {
            return Err(fault("its tokens do not follow those of the shards before it".into()));
        }
        Ok(Self { path: path.to_owned(), header, file: Mutex::new(file) })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Reads `out.len()` ids from `start` on. The range must lie within the shard.
    pub(crate) fn read(&self, start: u64, out: &mut [u32]) -> Result<()> {
        let width = self.header.width();
        let mut bytes = vec![0; out.len() * width];
        {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.seek(SeekFrom::Start(self.header.bytes() as u64 + start * width as u64))
                .and_then(|_| file.read_exact(&mut bytes))
                .map_err(|e| Error::read(&self.path, e))?;
        }
        unpack(&bytes, width, out);
        check_ids(out, start, self.header.vocab_size as usize, || self.path.display().to_string())
    }
}

/// Refuses ids at or above `vocab_size`. `start` is the position of the first id.
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

/// Bytes of an id.
pub(crate) fn width(vocab_size: usize) -> usize {
    if vocab_size <= 1 << 16 { 2 } else { 4 }
}

/// Appends ids as they stand in a shard.
pub(crate) fn pack(ids: &[u32], width: usize, bytes: &mut Vec<u8>) {
    if width == 2 {
        bytes.extend(ids.iter().flat_map(|&id| (id as u16).to_le_bytes()));
    } else {
        bytes.extend(ids.iter().flat_map(|&id| id.to_le_bytes()));
    }
}

/// The ids of these bytes.
pub(crate) fn unpack(bytes: &[u8], width: usize, ids: &mut [u32]) {
    ids.iter_mut().zip(bytes.chunks_exact(width)).for_each(|(id, bytes)| *id = id_of(bytes));
}

fn id_of(bytes: &[u8]) -> u32 {
    match *bytes {
        [a, b] => u32::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
        _ => unreachable!("a width is 2 or 4"),
    }
}

/// The checksum of the bytes up to the end of the file. Their ids are added to `split`.
fn sum_up(file: &mut File, width: usize, split: &mut FingerprintHasher) -> std::io::Result<u32> {
    let mut crc = Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut held = 0; // bytes of a partly read id
    loop {
        match file.read(&mut buffer[held..])? {
            0 => return Ok(crc.finalize()),
            n => {
                crc.update(&buffer[held..held + n]);
                let whole = (held + n) / width * width;
                buffer[..whole].chunks_exact(width).for_each(|id| split.add(u64::from(id_of(id))));
                buffer.copy_within(whole..held + n, 0);
                held = held + n - whole;
            }
        }
    }
}

#[cfg(test)]
mod tests;
