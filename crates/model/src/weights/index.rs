//! `model.safetensors.index.json`: which shard holds which tensor.

use super::file::TensorFile;
use crate::error::{Error, Result};
use crate::foreign::no_weights;
use crate::run_folder::WEIGHTS_INDEX;
use crate::text_file;
use offramp_files::legible;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// The longest index that is read: one line per tensor stays below this for a trillion parameters.
const MAX_BYTES: u64 = 64 << 20;

/// The index by shards.
pub(super) struct Index {
    path: PathBuf,
    shards: BTreeMap<String, BTreeSet<String>>, // file name → the tensors it should hold
}

#[derive(serde::Deserialize)]
struct IndexFile {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn read(folder: &Path) -> Result<Index> {
    let path = folder.join(WEIGHTS_INDEX);
    if !path.exists() {
        return Err(no_weights(folder));
    }
    let text = text_file::read(&path, MAX_BYTES)?;
    let json: IndexFile = serde_json::from_str(&text).map_err(|error| Error::Index {
        path: path.clone(),
        reason: format!("not an index of shards: {}: export the model again", legible(&error.to_string())),
    })?;
    let mut shards = BTreeMap::<String, BTreeSet<String>>::new();
    for (tensor, shard) in json.weight_map {
        if !stays_within(&shard) {
            let (tensor, shard) = (legible(&tensor), legible(&format!("{shard:?}")));
            let reason =
                format!("tensor {tensor} is said to be in {shard}: shards must be files within this folder");
            return Err(Error::Index { path, reason });
        }
        shards.entry(shard).or_default().insert(tensor);
    }
    match shards.is_empty() {
        true => Err(Error::Index { path, reason: "it lists no tensor: export the model again".to_owned() }),
        false => Ok(Index { path, shards }),
    }
}

/// The names of a folder's shards.
///
/// # Errors
/// If the index cannot be read, or names files outside the folder.
pub(crate) fn shard_names(folder: &Path) -> Result<Vec<String>> {
    Ok(read(folder)?.shards.into_keys().collect())
}

/// The longest name of a shard. File systems take 255 bytes for each part of a path, and an error message
/// quotes the name.
const MAX_NAME: usize = 512;

/// Whether a name is that of a file within the folder: no `..`, no root.
fn stays_within(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let inner = parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    inner
        && name.len() <= MAX_NAME
        && Path::new(name).file_name().is_some()
        && !name.ends_with(['/', '.'])
        && !name.contains(|c: char| c == '\\' || c.is_control())
}

impl Index {
    /// The names of the shards.
    pub(super) fn shards(&self) -> impl Iterator<Item = &str> {
        self.shards.keys().map(String::as_str)
    }

    /// Checks that a shard holds exactly the tensors that the index places there, except `ignored` ones:
    /// indexes and shards often disagree about these.
    pub(super) fn check(&self, shard: &str, file: &TensorFile, ignored: &dyn Fn(&str) -> bool) -> Result<()> {
        let promised = &self.shards[shard];
        let fault = |reason| Err(Error::Index { path: self.path.clone(), reason });
        if let Some(tensor) = promised.iter().find(|tensor| !file.contains(tensor) && !ignored(tensor)) {
            return fault(format!(
                "tensor {} is said to be in {}, and is not: copy the shards again",
                legible(tensor),
                legible(shard)
            ));
        }
        // A tensor that the index places in another shard would be read twice.
        match file.names().find(|name| !promised.contains(*name) && !ignored(name)) {
            None => Ok(()),
            Some(tensor) => {
                let (tensor, shard) = (legible(tensor), legible(shard));
                fault(format!("{shard} holds tensor {tensor}, which the index does not place there"))
            }
        }
    }
}
