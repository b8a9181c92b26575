//! A folder in memory for the readers that want files.

use std::fs;
use std::path::{Path, PathBuf};

/// A folder of this process. It stays behind: a few small files.
pub struct Scratch(PathBuf);

impl Scratch {
    /// Made where the system keeps files in memory.
    ///
    /// # Panics
    /// If that cannot be written.
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = base.join(format!("offramp-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder in memory");
        Self(folder)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file of this name; its path.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("room in memory");
        path
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}
