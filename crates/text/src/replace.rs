//! Files that appear whole or not at all: written beside their target, then renamed onto it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tempfile::{Builder, NamedTempFile, TempPath};

use crate::error::{Error, Result};

const PREFIX: &str = ".offramp-";
const SUFFIX: &str = ".partial";

/// What this process has half made. Whatever begins or ends such a path holds the lock meanwhile.
static HALF_MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn half_made() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HALF_MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the files that this process has half made, in its last moment: a thread that begins or publishes
/// one after that waits for ever.
pub fn abandon() {
    let paths = half_made();
    for path in paths.iter() {
        let _ = fs::remove_file(path);
    }
    std::mem::forget(paths);
}

/// A path of [`HALF_MADE`]; dropped, it is none any more.
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        half_made().remove(&self.0);
    }
}

/// A file in the making, beside the one it will replace; dropped unfinished, it is removed.
pub(crate) struct Unfinished {
    file: NamedTempFile,
    listed: Listed,
    target: PathBuf,
}

/// A file that is complete and on disk, but not yet under its name.
pub(crate) struct Finished {
    file: TempPath,
    listed: Listed,
    target: PathBuf,
}

impl Unfinished {
    pub(crate) fn create(target: &Path) -> Result<Self> {
        let folder = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // `create_new` rather than tempfile's own opening: the result is for others to read, so the
        // permissions are those of any new file (0666 less the umask), not a secret's.
        let mut paths = half_made();
        let file = Builder::new()
            .prefix(PREFIX)
            .suffix(SUFFIX)
            .make_in(folder, |path| File::options().read(true).write(true).create_new(true).open(path))
            .map_err(|e| Error::write(target, e))?;
        paths.insert(file.path().to_owned());
        Ok(Self { listed: Listed(file.path().to_owned()), file, target: target.to_owned() })
    }

    pub(crate) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Hands the bytes to the disk and closes the file.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        self.file.flush().map_err(|e| Error::write(&self.target, e))?;
        self.file.as_file().sync_all().map_err(|e| Error::write(&self.target, e))?;
        Ok(Finished { file: self.file.into_temp_path(), listed: self.listed, target: self.target })
    }
}

impl Finished {
    /// Gives the file its name, in place of whatever had it before.
    pub(crate) fn publish(self) -> Result<()> {
        let Self { file, listed, target } = self;
        let paths = half_made();
        let published = file.persist(&target).map_err(|e| Error::write(&target, e.error));
        drop(paths);
        drop(listed);
        published
    }
}

/// Replaces `target` by `bytes`.
pub(crate) fn write_whole(target: &Path, bytes: &[u8]) -> Result<()> {
    let mut unfinished = Unfinished::create(target)?;
    unfinished.file().write_all(bytes).map_err(|e| Error::write(target, e))?;
    unfinished.finish()?.publish()
}

/// Removes what a killed run left behind in `folder`. Best effort: nothing depends on it.
pub(crate) fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_file_leaves_no_trace_and_a_finished_one_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.json");
        write_whole(&target, b"one").unwrap();
        {
            let mut abandoned = Unfinished::create(&target).unwrap();
            abandoned.file().write_all(b"half").unwrap();
        }
        assert_eq!(fs::read(&target).unwrap(), b"one");
        write_whole(&target, b"two").unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn leftovers_of_a_killed_run_are_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".offramp-x1.partial"), b"half").unwrap();
        fs::write(folder.path().join("mine.partial"), b"keep").unwrap();
        remove_leftovers(folder.path());
        let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["mine.partial"]);
    }

    #[test]
    fn a_missing_folder_is_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("absent").join("a.json");
        let message = write_whole(&target, b"x").unwrap_err().to_string();
        assert!(message.contains("a.json") && message.contains("check the folder"), "{message}");
        assert!(!message.contains('\n'));
    }

    /// Linux keeps a full disk at hand.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_one_clear_line_and_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("a.json");
        write_whole(&target, b"one").unwrap();
        let full = File::options().write(true).open("/dev/full").unwrap();
        let beside = folder.path().join(".offramp-x.partial");
        fs::write(&beside, b"").unwrap();
        let file = NamedTempFile::from_parts(full, TempPath::try_from_path(&beside).unwrap());
        let mut unfinished = Unfinished { file, listed: Listed(beside.clone()), target: target.clone() };
        let error = unfinished.file().write_all(b"two").map_err(|e| Error::write(&target, e)).unwrap_err();
        drop(unfinished);
        let message = error.to_string();
        assert!(message.contains("a.json") && message.contains("free some space"), "{message}");
        assert!(!message.contains('\n') && !beside.exists());
        assert_eq!(fs::read(&target).unwrap(), b"one");
    }
}
