//! Files and folders that appear whole or not at all, with the checksums of the files.

use super::checksum::{Checksum, Summed};
use crate::error::{Error, Result};
use std::io::{self, BufWriter, Write};
use std::path::Path;

pub use offramp_files::{free_space, remove_leftovers};

const BUFFER: usize = 1 << 20;

/// A file that is being written; if it is dropped unpublished, it is removed.
pub(super) struct SummedWriter {
    file: BufWriter<Summed>,
}

impl SummedWriter {
    pub(super) fn create(target: &Path) -> Result<Self> {
        let file = offramp_files::Unfinished::create(target).map_err(|error| Error::write(target, error))?;
        Ok(Self { file: BufWriter::with_capacity(BUFFER, Summed::new(file)) })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::write(self.file.get_ref().target(), error))
    }

    /// Syncs the bytes to the disk and renames the file onto its target.
    pub(super) fn publish(self) -> Result<Checksum> {
        let target = self.file.get_ref().target().to_owned();
        let failed = |error: io::Error| Error::write(&target, error);
        let (file, checksum) = self.file.into_inner().map_err(|error| failed(error.into_error()))?.finish();
        file.publish().map_err(failed)?;
        Ok(checksum)
    }
}

/// Replaces the file at `path` by what `fill` writes, whole or not at all, and returns its checksum.
///
/// # Errors
/// If `fill` fails or the file cannot be written; then the old file is still there.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Checksum> {
    let mut unfinished = SummedWriter::create(path)?;
    fill(&mut unfinished.file).map_err(|error| Error::write(path, error))?;
    unfinished.publish()
}

/// Replaces the folder at `target` by one that `fill` writes, whole or not at all.
///
/// # Errors
/// What `fill` returns, or if a folder cannot be made or renamed; then the old folder is still there.
pub fn replace_folder<E: From<Error>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    offramp_files::replace_folder(target, |error| Error::write(target, error).into(), fill)
}

/// Removes a folder. It is renamed to a hidden name first, so that a process killed in the middle leaves no
/// half of it.
///
/// # Errors
/// If it cannot be renamed or removed.
pub fn remove_folder(folder: &Path) -> Result<()> {
    offramp_files::remove_folder(folder).map_err(|error| Error::write(folder, error))
}
