//! The length and a checksum of each file, taken while it is written: damage is noticed by them.

use crate::error::{Error, Result, open_regular};
use offramp_files::Unfinished;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;
use twox_hash::XxHash64;

/// Bytes that are read at a time.
const PIECE: usize = 1 << 20;

/// The checksums of a folder's files by their names.
pub type Checksums = BTreeMap<String, Checksum>;

/// Length and checksum of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checksum {
    bytes: u64,
    /// 16 hexadecimal digits, as `xxh64sum` prints them.
    xxh64: String,
}

impl Checksum {
    /// The checksum of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut sum = Sum::default();
        sum.add(bytes);
        sum.checksum()
    }

    /// Checks that the file at `path` has not changed since it was written.
    ///
    /// # Errors
    /// If it cannot be read, or has changed.
    pub fn check(&self, path: &Path) -> Result<()> {
        let failed = |error| Error::read(path, error);
        let damaged = |what, found: String, expected: String| {
            Err(Error::Damaged { path: path.to_owned(), what, found, expected })
        };
        let mut file = open_regular(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length != self.bytes {
            return damaged("length", length.to_string(), self.bytes.to_string());
        }
        let (mut sum, mut piece) = (Sum::default(), vec![0; PIECE]);
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(count) => sum.add(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(failed(error)),
            }
        }
        let found = sum.checksum().xxh64;
        if found != self.xxh64 {
            return damaged("checksum", found, self.xxh64.clone());
        }
        Ok(())
    }
}

/// Computes a checksum piece by piece.
#[derive(Default)]
struct Sum {
    bytes: u64,
    hash: XxHash64,
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        std::hash::Hasher::write(&mut self.hash, bytes);
    }

    fn checksum(&self) -> Checksum {
        let xxh64 = format!("{:016x}", std::hash::Hasher::finish(&self.hash));
        Checksum { bytes: self.bytes, xxh64 }
    }
}

/// A file whose checksum is computed while it is written.
pub(super) struct Summed {
    file: Unfinished,
    sum: Sum,
}

impl Summed {
    pub(super) fn new(file: Unfinished) -> Self {
        Self { file, sum: Sum::default() }
    }

    pub(super) fn target(&self) -> &Path {
        self.file.target()
    }

    pub(super) fn finish(self) -> (Unfinished, Checksum) {
        (self.file, self.sum.checksum())
    }
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.sum.add(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::write_atomically;
    use std::fs;

    /// The output of `xxh64sum`.
    #[test]
    fn it_is_xxh64() {
        assert_eq!(Checksum::of(b"").xxh64, "ef46db3751d8e999");
        assert_eq!(Checksum::of(b"abc").xxh64, "44bc2cf5ad770999");
    }

    #[test]
    fn one_flipped_bit_is_found_and_so_is_one_byte_more_or_less() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        let bytes: Vec<u8> = (0..2 * PIECE + 77).map(|i| (i % 251) as u8).collect();
        let written = write_atomically(&path, |file| {
            bytes.chunks(1000).try_for_each(|piece| file.write_all(piece)) // in other pieces than it is read
        })
        .unwrap();
        assert_eq!(written, Checksum::of(&bytes));
        written.check(&path).unwrap();
        let said = || written.check(&path).unwrap_err().to_string();
        for at in [0, PIECE, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            fs::write(&path, flipped).unwrap();
            assert!(said().contains("optimizer.safetensors is damaged: its checksum is "), "{}", said());
        }
        for length in [0, bytes.len() - 1] {
            fs::write(&path, &bytes[..length]).unwrap();
            let expected = format!("its length is {length}, not {}", bytes.len());
            assert!(said().contains(&expected) && !said().contains('\n'), "{}", said());
        }
        fs::remove_file(&path).unwrap();
        assert!(said().contains("cannot read"), "{}", said());
    }
}
