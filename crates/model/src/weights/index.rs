//! `model.safetensors.index.json`: which shard holds which tensor.

use super::file::TensorFile;
use super::{INDEX, SINGLE};
use crate::error::{Error, Result, legible, open_regular};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};
use std::path::{Component, Path, PathBuf};

/// A line per tensor: even a trillion parameters need less.
const MAX_BYTES: u64 = 64 << 20;

/// The index, turned around.
pub(super) struct Index {
    path: PathBuf,
    pub(super) shards: BTreeMap<String, BTreeSet<String>>, // file name → the tensors it should hold
}

#[derive(serde::Deserialize)]
struct Json {
    weight_map: BTreeMap<String, String>,
}

pub(super) fn read(folder: &Path) -> Result<Index> {
    let path = folder.join(INDEX);
    let file = open_regular(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let reason = format!("there is neither {SINGLE} nor {INDEX} in it");
            Error::NoModel { path: folder.to_owned(), reason }
        }
        _ => Error::read(&path, error),
    })?;
    let json: Json =
        serde_json::from_reader(BufReader::new(file.take(MAX_BYTES))).map_err(|error| Error::Index {
            path: path.clone(),
            reason: format!(
                "not an index of shards: {}: export the model again",
                legible(&error.to_string())
            ),
        })?;
    let mut shards = BTreeMap::<String, BTreeSet<String>>::new();
    for (tensor, shard) in json.weight_map {
        if !is_plain_name(&shard) {
            let (tensor, shard) = (legible(&tensor), legible(&format!("{shard:?}")));
            let reason =
                format!("tensor {tensor} is said to be in {shard}: shards must be files of this folder");
            return Err(Error::Index { path, reason });
        }
        shards.entry(shard).or_default().insert(tensor);
    }
    match shards.is_empty() {
        true => Err(Error::Index { path, reason: "it lists no tensor: export the model again".to_owned() }),
        false => Ok(Index { path, shards }),
    }
}

/// Whether a name stays in its folder: no `..`, no separators, no root.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let plain = matches!(components.next(), Some(Component::Normal(only)) if only == name);
    plain && components.next().is_none() && !name.contains(|c: char| "/\\".contains(c) || c.is_control())
}

impl Index {
    /// Checks that a shard holds what the index says, no more and no less.
    pub(super) fn check(&self, shard: &str, promised: &BTreeSet<String>, file: &TensorFile) -> Result<()> {
        let fault = |reason| Err(Error::Index { path: self.path.clone(), reason });
        if let Some(tensor) = promised.iter().find(|tensor| !file.contains(tensor)) {
            return fault(format!(
                "tensor {} is said to be in {}, and is not: copy the shards again",
                legible(tensor),
                legible(shard)
            ));
        }
        // A tensor that the index places elsewhere would be met twice; one it does not know is a riddle.
        match file.names().find(|name| !promised.contains(*name)) {
            None => Ok(()),
            Some(tensor) => {
                let (tensor, shard) = (legible(tensor), legible(shard));
                fault(format!("{shard} holds tensor {tensor}, which the index does not place there"))
            }
        }
    }
}
