//! The folders of the cache, and how a downloaded file gets its name there.

use crate::address::{is_commit, is_digest_like};
use crate::error::{Error, Result};
use crate::id::Id;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A tag by which programs for backups know that a folder can be left out (<https://bford.info/cachedir/>).
const TAG: (&str, &str) = (
    "CACHEDIR.TAG",
    "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag created by offramp.\n",
);

/// The cache of `huggingface_hub`.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    links: bool,
}

impl Cache {
    /// The cache in a folder. Without links, each snapshot holds its files themselves.
    pub fn new(root: PathBuf, links: bool) -> Self {
        Self { root, links }
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a model.
    pub fn folder(&self, id: &Id) -> PathBuf {
        self.root.join(id.folder())
    }

    /// The folder of a model's locks.
    pub(crate) fn locks(&self, id: &Id) -> PathBuf {
        self.root.join(".locks").join(id.folder())
    }

    /// The commit that a revision meant when it was downloaded last.
    pub fn commit(&self, id: &Id) -> Option<String> {
        if is_commit(id.revision()) {
            return Some(id.revision().to_owned());
        }
        let text = fs::read_to_string(self.folder(id).join("refs").join(id.revision())).ok()?;
        let commit = text.trim();
        is_digest_like(commit).then(|| commit.to_owned())
    }

    /// The folder of a model's files at its revision, if anything of it was downloaded.
    pub fn snapshot(&self, id: &Id) -> Option<PathBuf> {
        let folder = self.snapshot_of(id, &self.commit(id)?);
        folder.is_dir().then_some(folder)
    }

    /// The folder of a model's files at a commit.
    pub(crate) fn snapshot_of(&self, id: &Id, commit: &str) -> PathBuf {
        self.folder(id).join("snapshots").join(commit)
    }

    /// Whether it is known that the model has no such file at its revision.
    pub fn is_known_absent(&self, id: &Id, file: &str) -> bool {
        let commit = self.commit(id);
        commit.is_some_and(|commit| self.folder(id).join(".no_exist").join(commit).join(file).is_file())
    }

    /// Notes that a commit has no such file.
    pub(crate) fn note_absent(&self, id: &Id, commit: &str, file: &str) -> Result<()> {
        let path = self.folder(id).join(".no_exist").join(commit).join(file);
        make_parent(&path)?;
        fs::File::create(&path).map_err(|error| Error::cache(&path, error))?;
        Ok(())
    }

    /// Notes the commit that a revision means.
    pub(crate) fn note_commit(&self, id: &Id, commit: &str) -> Result<()> {
        if id.revision() == commit {
            return Ok(());
        }
        let path = self.folder(id).join("refs").join(id.revision());
        make_parent(&path)?;
        // Whole or not at all: another process may read it now.
        let beside = path.with_extension(format!("{}.partial", std::process::id()));
        fs::write(&beside, commit)
            .and_then(|()| fs::rename(&beside, &path))
            .map_err(|error| Error::cache(&path, error))
    }

    /// Makes the folders that a download needs.
    pub(crate) fn prepare(&self, id: &Id) -> Result<()> {
        for folder in [self.folder(id).join("blobs"), self.locks(id)] {
            fs::create_dir_all(&folder).map_err(|error| Error::cache(&folder, error))?;
        }
        let tag = self.root.join(TAG.0);
        if !tag.exists() {
            let _ = fs::write(tag, TAG.1); // its absence harms nobody
        }
        Ok(())
    }

    /// Gives a blob its name in a snapshot: a relative link, or where there are none, the file itself.
    pub(crate) fn place(&self, blob: &Path, id: &Id, commit: &str, file: &str) -> Result<()> {
        let path = self.snapshot_of(id, commit).join(file);
        let failed = |error| Error::cache(&path, error);
        make_parent(&path)?;
        if path.symlink_metadata().is_ok() {
            fs::remove_file(&path).map_err(failed)?; // a link to nothing, or a file that was cut short
        }
        let name = blob.file_name().unwrap_or_default();
        let up = "../".repeat(2 + file.matches('/').count());
        if self.links && link(&Path::new(&up).join("blobs").join(name), &path).is_ok() {
            return Ok(());
        }
        if path.symlink_metadata().is_ok() {
            return Ok(()); // another process was faster
        }
        fs::rename(blob, &path).map_err(failed)
    }
}

/// Makes the folder of a file.
fn make_parent(path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| Error::cache(folder, error))
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Windows allows links to few users, so none are made there, as if `HF_HUB_DISABLE_SYMLINKS` were set.
#[cfg(not(unix))]
fn link(_target: &Path, _path: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
