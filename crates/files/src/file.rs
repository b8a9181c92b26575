//! One file: written beside its target, then renamed onto it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempPath};

use crate::half_made::{Listed, half_made};
use crate::{PREFIX, SUFFIX, parent, sync_names};

/// A file that is being written beside the one it will replace. Dropping it removes it.
#[derive(Debug)]
pub struct Unfinished {
    file: File,
    name: TempPath, // removes the file when dropped
    listed: Listed,
    target: PathBuf,
}

/// A file that is complete and on disk, but does not have its name yet. Dropping it removes it.
#[derive(Debug)]
pub struct Finished {
    name: TempPath,
    listed: Listed,
    target: PathBuf,
}

impl Unfinished {
    /// Creates a temporary file that will become `target`, in the folder of `target`.
    ///
    /// # Errors
    /// If the folder does not exist or may not be written.
    pub fn create(target: &Path) -> io::Result<Self> {
        Self::create_in(parent(target), target)
    }

    /// Creates a temporary file that will become `target`, in another folder on the same disk.
    ///
    /// # Errors
    /// If that folder does not exist or may not be written.
    pub fn create_in(folder: &Path, target: &Path) -> io::Result<Self> {
        // `create_new`, not tempfile's own function: others read the result, so it gets the permissions of
        // any new file (0666 less the umask), and not those of a secret.
        let open = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
        let mut paths = half_made();
        let file = Builder::new().prefix(PREFIX).suffix(SUFFIX).make_in(folder, open)?;
        // tempfile's own writer would add the hidden name to every error.
        let (file, name) = file.into_parts();
        let listed = Listed::new(&mut paths, &name);
        Ok(Self { file, name, listed, target: target.to_owned() })
    }

    /// The path that the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Flushes the bytes to the disk and closes the file.
    ///
    /// # Errors
    /// If the disk does not take the bytes.
    pub fn finish(self) -> io::Result<Finished> {
        self.file.sync_all()?;
        Ok(Finished { name: self.name, listed: self.listed, target: self.target })
    }

    /// Calls [`Unfinished::finish`], then [`Finished::publish`].
    ///
    /// # Errors
    /// As these two.
    pub fn publish(self) -> io::Result<()> {
        self.finish()?.publish()
    }
}

impl Write for Unfinished {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Unfinished {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Finished {
    /// The path that the file will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Renames the file onto its target, replaces what was there, and flushes the name to the disk.
    ///
    /// # Errors
    /// If it cannot be renamed. The old file then stays.
    pub fn publish(self) -> io::Result<()> {
        let Self { name, listed, target } = self;
        let paths = half_made();
        let published = name.persist(&target).map_err(|error| error.error);
        drop(paths);
        drop(listed);
        published?;
        sync_names(parent(&target));
        Ok(())
    }
}

/// Replaces the file at `target` by `bytes`.
///
/// # Errors
/// If it cannot be written. The old file then stays.
pub fn write_whole(target: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = Unfinished::create(target)?;
    unfinished.write_all(bytes)?;
    unfinished.publish()
}

/// Linux has a disk that is always full: `/dev/full`.
#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_said_and_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let (target, beside) = (folder.path().join("a.json"), folder.path().join(".offramp-x.partial"));
        write_whole(&target, b"one").unwrap();
        std::fs::write(&beside, b"").unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let name = TempPath::try_from_path(&beside).unwrap();
        let listed = Listed::new(&mut half_made(), &beside);
        let mut unfinished = Unfinished { file: full, name, listed, target: target.clone() };
        let error = unfinished.write_all(b"two").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        drop(unfinished);
        assert!(!beside.exists());
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
    }
}
