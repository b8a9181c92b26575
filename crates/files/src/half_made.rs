//! What this process has half made: a command that is told to end takes it away.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Paths that are half made. Whatever begins or ends such a path holds the lock meanwhile.
static HALF_MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

pub(crate) fn half_made() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HALF_MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what this process has half made, in its last moment: a thread that begins or publishes a file or a folder
/// after that waits for ever.
pub fn abandon() {
    let paths = half_made();
    for path in paths.iter() {
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    std::mem::forget(paths);
}

/// A path that is half made; dropped, it is none any more.
#[derive(Debug)]
pub(crate) struct Listed(PathBuf);

impl Listed {
    /// Lists `path`, which was made while `paths` was held.
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
