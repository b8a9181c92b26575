//! Locks of the cache: those of Python's `filelock`, `flock` on a file beside the cache's folders.

use crate::error::{Error, Result};
use std::fs::{self, File, TryLockError};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// The time between two looks at a lock that another process holds.
const BETWEEN: Duration = Duration::from_millis(100);

/// A lock while it is held.
#[derive(Debug)]
pub(crate) struct Lock {
    file: Option<File>, // none: the disk has no locks
}

impl Lock {
    /// Takes a lock. `wait` is called before each wait, and may give up.
    pub(crate) fn take(path: &Path, mut wait: impl FnMut() -> Result<()>) -> Result<Self> {
        let failed = |error| Error::cache(path, error);
        loop {
            let file = File::options().create(true).truncate(false).write(true).read(true).open(path);
            let file = file.map_err(failed)?;
            match file.try_lock() {
                // Python removes the file when it lets go: a lock on a removed file holds nobody off.
                Ok(()) if is_at(&file, path) => return Ok(Self { file: Some(file) }),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    wait()?;
                    thread::sleep(BETWEEN);
                }
                Err(TryLockError::Error(_)) => return Ok(Self { file: None }),
            }
        }
    }

    /// Whether other processes are held off.
    pub(crate) fn holds(&self) -> bool {
        self.file.is_some()
    }
}

#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |found: fs::Metadata| (found.dev(), found.ino());
    file.metadata().map(id).ok() == fs::metadata(path).map(id).ok()
}

#[cfg(not(unix))]
fn is_at(_file: &File, path: &Path) -> bool {
    fs::metadata(path).is_ok()
}
