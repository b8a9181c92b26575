//! Which folder or file a path or a name means.

use crate::error::Result;
use crate::foreign;
use crate::gguf::Gguf;
use crate::hub;
use crate::run_folder::{MODEL, is_model, steps};
use offramp_hub::{Id, Observer};
use std::path::{Path, PathBuf};

/// [`resolve_observed`], and nobody hears of a download.
///
/// # Errors
/// As there.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    resolve_observed(path, &|_| ())
}

/// The model that `path` means: a GGUF file; a model folder; of a run folder its `model/`, or else its newest
/// `step-NNNNNN/`; of a `models--ORG--NAME` in the hub's cache its snapshot. What is no path is a name on the
/// hub, `ORG/NAME[@REVISION][:FILE-OR-QUANTIZATION]`: of the cache, or downloaded.
///
/// # Errors
/// If there is none. The error says what is there instead and what to do.
pub fn resolve_observed(path: &Path, observer: Observer<'_>) -> Result<PathBuf> {
    if let Some(id) = name(path) {
        return hub::find(&id, observer);
    }
    if Gguf::is_one(path) {
        return Ok(path.to_owned());
    }
    if !path.is_dir() {
        foreign::no_folder(path)?;
    }
    let finished = path.join(MODEL);
    if is_model(path) {
        return Ok(path.to_owned());
    }
    if is_model(&finished) {
        return Ok(finished);
    }
    if let Some((_, newest)) = steps(path)?.pop() {
        return Ok(newest);
    }
    match foreign::snapshot(path) {
        Some(snapshot) => Ok(snapshot),
        None => Err(foreign::without_snapshot(path).unwrap_or_else(|| foreign::no_config(path))),
    }
}

/// The name on the hub that a path is, if nothing of that path exists. In a folder that exists, a name is
/// misspelt.
fn name(path: &Path) -> Option<Id> {
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    let text = path.to_str().filter(|_| !exists(path))?;
    let id = Id::parse(text)?;
    let local = text.starts_with(&id.organization) && exists(Path::new(&id.organization));
    (!local).then_some(id)
}
