//! What is in the cache, and how it leaves.

use crate::address::is_digest_like;
use crate::cache::Cache;
use crate::error::{Error, Result};
use crate::id::Id;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A model in the cache.
#[derive(Clone, Debug)]
pub struct Repository {
    /// Its name, without revision or file.
    pub id: Id,
    /// Bytes that it takes on the disk.
    pub bytes: u64,
    /// Bytes of downloads that were not finished.
    pub unfinished: u64,
    /// Its snapshots.
    pub revisions: Vec<Revision>,
}

/// A model's files at a commit.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The commit.
    pub commit: String,
    /// The branches and tags that mean it.
    pub names: Vec<String>,
    /// Its folder.
    pub folder: PathBuf,
    /// Its files.
    pub files: Vec<CachedFile>,
}

/// A file of a snapshot.
#[derive(Clone, Debug)]
pub struct CachedFile {
    /// Its path within the snapshot.
    pub path: String,
    /// Its length in bytes.
    pub bytes: u64,
    blob: Option<PathBuf>, // where its link leads
}

impl Cache {
    /// The models in the cache, by name. What is no model of the hub is left out.
    ///
    /// # Errors
    /// If the cache is there and cannot be read.
    pub fn repositories(&self) -> Result<Vec<Repository>> {
        if !self.root().exists() {
            return Ok(Vec::new());
        }
        let ids =
            entries(self.root())?.into_iter().filter_map(|path| Id::of_folder(path.file_name()?.to_str()?));
        let mut found: Vec<_> = ids.map(|id| self.repository(&id)).collect::<Result<_>>()?;
        found.retain(|repository| !repository.revisions.is_empty() || repository.unfinished > 0);
        found.sort_by_key(|repository| repository.id.repository().to_lowercase());
        Ok(found)
    }

    /// A model in the cache; without revisions if it is not there.
    ///
    /// # Errors
    /// If its folder cannot be read.
    pub fn repository(&self, id: &Id) -> Result<Repository> {
        let folder = self.folder(id);
        let refs = refs(&folder.join("refs"))?;
        let mut revisions = Vec::new();
        for path in entries(&folder.join("snapshots"))? {
            let Some(commit) =
                path.file_name().and_then(|name| name.to_str()).filter(|name| is_digest_like(name))
            else {
                continue;
            };
            let named = refs.iter().filter(|(_, found)| *found == commit).map(|(name, _)| name.clone());
            let (commit, names) = (commit.to_owned(), named.collect());
            let mut files: Vec<_> =
                walk(&path)?.into_iter().filter_map(|file| cached(&path, &file)).collect();
            files.sort_by(|a, b| a.path.cmp(&b.path));
            revisions.push(Revision { commit, names, folder: path, files });
        }
        revisions.sort_by(|a, b| (a.names.is_empty(), &a.commit).cmp(&(b.names.is_empty(), &b.commit)));
        let blobs = entries(&folder.join("blobs"))?;
        let unfinished = blobs.iter().filter(|path| path.extension().is_some_and(|end| end == "incomplete"));
        let unfinished = unfinished.map(|path| length(path)).sum();
        let own = |file: &CachedFile| if file.blob.is_none() { file.bytes } else { 0 };
        let in_snapshots: u64 = revisions.iter().flat_map(|revision| &revision.files).map(own).sum();
        let bytes = blobs.iter().map(|path| length(path)).sum::<u64>() + in_snapshots;
        let id = Id { revision: None, file: None, ..id.clone() };
        Ok(Repository { id, bytes, unfinished, revisions })
    }

    /// Removes a model, or one revision of it, or one revision's `files`. Blobs that nothing needs any more
    /// go with it. Returns the bytes that became free.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(&self, id: &Id, files: Option<&[String]>) -> Result<u64> {
        let before = self.repository(id)?;
        if id.revision.is_none() && files.is_none() {
            remove_folder(&self.folder(id))?;
            remove_folder(&self.locks(id))?;
            return Ok(before.bytes);
        }
        let commit = self.commit(id);
        let revision = before.revisions.iter().find(|revision| Some(&revision.commit) == commit.as_ref());
        let Some(revision) = revision else { return Ok(0) };
        let goes = |file: &CachedFile| files.is_none_or(|files| files.contains(&file.path));
        let going: Vec<_> = revision.files.iter().filter(|file| goes(file)).collect();
        for file in &going {
            remove_file(&revision.folder.join(&file.path))?;
        }
        if going.len() == revision.files.len() {
            remove_folder(&revision.folder)?;
            remove_folder(&self.folder(id).join(".no_exist").join(&revision.commit))?;
            for name in &revision.names {
                remove_file(&self.folder(id).join("refs").join(name))?;
            }
        }
        let after = self.repository(id)?;
        let needed: BTreeSet<_> = after
            .revisions
            .iter()
            .flat_map(|revision| &revision.files)
            .filter_map(|file| file.blob.as_ref())
            .collect();
        for blob in going.iter().filter_map(|file| file.blob.as_ref()).filter(|blob| !needed.contains(blob)) {
            remove_file(blob)?;
        }
        let after = self.repository(id)?;
        if after.revisions.is_empty() {
            remove_folder(&self.folder(id))?;
            remove_folder(&self.locks(id))?;
            return Ok(before.bytes);
        }
        Ok(before.bytes.saturating_sub(after.bytes))
    }
}

/// A file of a snapshot, unless its link leads nowhere or out of the model's blobs.
fn cached(snapshot: &Path, file: &Path) -> Option<CachedFile> {
    let path = file.strip_prefix(snapshot).ok()?.to_str()?.replace('\\', "/");
    let bytes = fs::metadata(file).ok().filter(fs::Metadata::is_file)?.len();
    let blob = fs::symlink_metadata(file).ok()?.is_symlink().then(|| fs::canonicalize(file).ok());
    let blobs = fs::canonicalize(snapshot.parent()?.parent()?.join("blobs")).ok();
    let blob = blob.map(|blob| blob.filter(|blob| blob.parent() == blobs.as_deref()));
    match blob {
        None => Some(CachedFile { path, bytes, blob: None }),
        // A link elsewhere is a shared store's: the file is not this model's to remove.
        Some(blob) => Some(CachedFile { path, bytes, blob: Some(blob.unwrap_or_default()) }),
    }
}

/// Branches and tags, and the commits that they mean.
fn refs(folder: &Path) -> Result<BTreeMap<String, String>> {
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(folder).ok()?.to_str()?.replace('\\', "/");
        Some((name, fs::read_to_string(path).ok()?.trim().to_owned()))
    };
    Ok(walk(folder)?.iter().filter_map(read).collect())
}

/// The files in a folder and in its folders. Links to folders are not followed.
fn walk(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in entries(folder)? {
        match fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir()) {
            true => files.append(&mut walk(&path)?),
            false => files.push(path),
        }
    }
    Ok(files)
}

/// The paths in a folder; none if it is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |error| Error::cache(folder, error);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    fs::read_dir(folder).map_err(failed)?.map(|entry| Ok(entry.map_err(failed)?.path())).collect()
}

fn length(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |found| if found.is_file() { found.len() } else { 0 })
}

fn remove_file(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(_) => fs::remove_file(path).map_err(|error| Error::cache(path, error)),
        Err(_) => Ok(()),
    }
}

fn remove_folder(path: &Path) -> Result<()> {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).map_err(|error| Error::cache(path, error)),
        _ => Ok(()),
    }
}
