//! A model's folder in the hub's cache, given by its path.

use crate::error::Error;
use crate::run_folder::is_model;
use offramp_hub::Id;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The model folder of a `models--ORG--NAME`: the one that its `main` names, or else the newest.
pub(crate) fn snapshot(root: &Path) -> Option<PathBuf> {
    let snapshots = root.join("snapshots");
    let commit = fs::read_to_string(root.join("refs/main")).unwrap_or_default();
    let mut parts = Path::new(commit.trim()).components();
    if let (Some(Component::Normal(commit)), None) = (parts.next(), parts.next())
        && is_model(&snapshots.join(commit))
    {
        return Some(snapshots.join(commit));
    }
    let all = fs::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path());
    let written = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
    all.filter(|path| is_model(path)).max_by_key(|path| (written(path), path.clone()))
}

/// The error for a `models--ORG--NAME` without a model; none if the folder is no such one.
pub(crate) fn without_snapshot(root: &Path) -> Option<Error> {
    let id = Id::of_folder(root.file_name()?.to_str()?)?;
    let found = "none of the snapshots in this folder of the hub's cache holds a config.json".to_owned();
    let advice = format!("`offramp pull {id}` downloads it, and a GGUF file has its name behind a colon");
    Some(Error::Foreign { path: root.to_owned(), found, advice })
}
