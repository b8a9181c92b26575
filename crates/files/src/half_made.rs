//! The partial files and folders of this process. A command that is told to end removes them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Paths that are not complete. Code that creates or publishes such a path holds this lock.
static HALF_MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

pub(crate) fn half_made() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HALF_MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every partial file and folder of this process, just before it exits. The lock stays held: a thread
/// that creates or publishes a file after this call waits until the process ends.
pub fn abandon() {
    let paths = half_made();
    for path in paths.iter() {
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    std::mem::forget(paths);
}

/// A path in the list of partial files. Dropping it takes the path off the list.
#[derive(Debug)]
pub(crate) struct Listed(PathBuf);

impl Listed {
    /// Adds `path` to the list. The caller holds the lock since before it created `path`.
    pub(crate) fn new(paths: &mut BTreeSet<PathBuf>, path: &Path) -> Self {
        paths.insert(path.to_owned());
        Self(path.to_owned())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        half_made().remove(&self.0);
    }
}
