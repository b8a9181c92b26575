//! Which folder a path means.

use crate::error::Result;
use crate::foreign;
use crate::run_folder::{MODEL, is_model, steps};
use std::path::{Path, PathBuf};

/// The model folder that `path` means: the folder itself; of a run folder its `model/`, or else its newest
/// `step-NNNNNN/`; of a `models--ORG--NAME` in the hub's cache its snapshot.
///
/// # Errors
/// If there is none. The error says what is there instead and what to do.
pub fn resolve(path: &Path) -> Result<PathBuf> {
    if let Some(snapshot) = foreign::cached(path) {
        return Ok(snapshot);
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
