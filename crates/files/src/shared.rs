//! A hidden folder in which several processes put what is not complete.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::half_made::{Listed, half_made};
use crate::{PREFIX, SUFFIX};

/// The folder's name between the prefix and the suffix: every process knows it.
const NAME: &str = "shared";
/// The same while it is removed.
const GOING: &str = "shared-going";

/// A folder of half-made files that several processes share. Dropping it removes it, whoever does so: the
/// first process that fails, or is told to end, does it for all.
#[derive(Debug)]
pub struct SharedFolder {
    path: PathBuf,
    listed: Option<Listed>, // none once it is left
}

impl SharedFolder {
    /// Makes an empty one within `folder`.
    ///
    /// # Errors
    /// If `folder` does not exist or may not be written.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let path = hidden(folder, NAME);
        let mut paths = half_made();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&path)?,
        }
        let listed = Some(Listed::new(&mut paths, &path));
        Ok(Self { path, listed })
    }

    /// The one that another process has made within `folder`.
    ///
    /// # Errors
    /// If there is none.
    pub fn join(folder: &Path) -> io::Result<Self> {
        let path = hidden(folder, NAME);
        let mut paths = half_made();
        fs::read_dir(&path)?;
        let listed = Some(Listed::new(&mut paths, &path));
        Ok(Self { path, listed })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Creates a file in it.
    ///
    /// # Errors
    /// If there is one of that name, or the folder is gone.
    pub fn create_file(&self, name: &str) -> io::Result<File> {
        let _paths = half_made(); // nothing is created after `abandon`
        File::options().write(true).create_new(true).open(self.path.join(name))
    }

    /// Leaves it to its maker, who removes it.
    pub fn leave(mut self) {
        self.listed = None;
    }

    /// Removes it. False if another process was first: of several that fail together, one is told so.
    pub fn give_up(&self) -> bool {
        let going = hidden(self.path.parent().unwrap_or(Path::new("")), GOING);
        let _listed = Listed::new(&mut half_made(), &going);
        // A system renames a folder once, whoever asks for it.
        let is_first = fs::rename(&self.path, &going).is_ok();
        if is_first {
            let _ = fs::remove_dir_all(&going);
        }
        is_first
    }
}

impl Drop for SharedFolder {
    fn drop(&mut self) {
        if self.listed.is_some() {
            self.give_up();
        }
    }
}

fn hidden(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{PREFIX}{name}{SUFFIX}"))
}
