//! What people have instead of a model folder, told by its files, and what to do with each.
//!
//! Nothing is converted here. Each advice was tried: it ends in a folder that loads.

mod snapshot;

pub(crate) use snapshot::{snapshot, without_snapshot};

use crate::error::{Error, Result, open_regular};
use crate::run_folder::{WEIGHTS, WEIGHTS_INDEX};
use offramp_hub::Id;
use std::fs;
use std::io::Read;
use std::path::Path;

const SHARDS: &str =
    "copy model.safetensors.index.json from where they come from: it says which shard holds what";
const PICKLE: &str = "in that folder run `python -c \"from transformers import AutoModelForCausalLM as M; \
    M.from_pretrained('.', torch_dtype='auto').save_pretrained('.')\"`, which writes model.safetensors beside it";
const GGUF: &str = "`offramp quantize FILE.gguf --to bf16 --out FOLDER` makes a folder of it";
const ADAPTER: &str = "merge it, in that folder, with `python -c \"from peft import AutoPeftModelForCausalLM as M; \
    M.from_pretrained('.').merge_and_unload().save_pretrained('merged')\"`, and copy the tokenizer.json of the model \
    that it adapts into merged";
const ORIGINAL: &str = "download the model in Hugging Face's layout: a repository with config.json and \
    model.safetensors, often of the same name with -hf";

/// The error for a path that is no folder.
///
/// # Errors
/// Always: it says what is there and what to do.
pub(crate) fn no_folder(path: &Path) -> Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Err(nothing(path));
    };
    let fault = |found, advice| Err(fault(path, found, advice));
    if found.is_symlink() && !path.exists() {
        return fault("it is a link to something that is not there", "download or copy the folder again");
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    if name.ends_with(".gguf") || begins(path, b"GGUF") {
        return fault("a GGUF file has no folder's files", GGUF);
    }
    let advice = "give the folder that it lies in, which is the model";
    if [".safetensors", ".json", ".bin", ".pth", ".pt"].iter().any(|end| name.ends_with(end)) {
        return fault("it is one file of a model", advice);
    }
    Err(Error::NoModel { path: path.to_owned(), reason: "it is not a folder".to_owned() })
}

/// The error for a path at which nothing stands.
fn nothing(path: &Path) -> Error {
    let reason = match path.to_str().and_then(Id::parse) {
        // Else the hub would have been asked.
        Some(id) => format!(
            "there is nothing there, and {} is a folder here (the model of the hub is hf://{id})",
            id.organization
        ),
        None => "there is nothing there".to_owned(),
    };
    Error::NoModel { path: path.to_owned(), reason }
}

/// The error for a folder without a `config.json`.
pub(crate) fn no_config(folder: &Path) -> Error {
    let names = names(folder);
    if let Some((found, advice)) = found_without_config(&names) {
        return fault(folder, found, advice);
    }
    if let Some(file) = names.iter().find(|name| name.ends_with(".gguf")) {
        let advice = format!("give one of them: {}", folder.join(file).display());
        return fault(folder, "it holds GGUF files and no config.json", &advice);
    }
    let reason = "there is no config.json, no model/ and no step-NNNNNN/ with one in it".to_owned();
    Error::NoModel { path: folder.to_owned(), reason }
}

/// What files without a `config.json` are, if that is known, and what to do with them.
pub(crate) fn found_without_config(names: &[String]) -> Option<(&'static str, &'static str)> {
    let any = |wanted: &dyn Fn(&str) -> bool| names.iter().any(|name| wanted(name));
    if any(&|name| name == "adapter_config.json") {
        return Some(("it holds an adapter, not a model", ADAPTER));
    }
    if any(&|name| name.ends_with(".pth") || name == "params.json") {
        return Some(("it holds a model in its makers' own layout", ORIGINAL));
    }
    let weights = |name: &str| [WEIGHTS, WEIGHTS_INDEX, "pytorch_model.bin"].contains(&name);
    let advice = "copy config.json from where they come from";
    (!any(&|name| name.ends_with(".gguf")) && any(&weights))
        .then_some(("it holds weights and no config.json", advice))
}

/// The error for a folder without weights that can be read.
pub(crate) fn no_weights(folder: &Path) -> Error {
    let lost = |name: &&str| !folder.join(name).exists() && folder.join(name).is_symlink();
    if let Some(name) = [WEIGHTS, WEIGHTS_INDEX].iter().find(|name| lost(name)) {
        let again = "the download is not whole, do it again";
        return fault(folder, format!("{name} is a link to a file that is not there"), again);
    }
    match found_without_weights(&names(folder)) {
        Some((found, advice)) => fault(folder, found, advice),
        None => {
            let reason = format!("there is neither {WEIGHTS} nor {WEIGHTS_INDEX} in it");
            Error::NoModel { path: folder.to_owned(), reason }
        }
    }
}

/// What files with a `config.json` are and what to do with them, if no weights among them can be read and
/// that is known.
pub(crate) fn found_without_weights(names: &[String]) -> Option<(String, &'static str)> {
    let find = |wanted: &dyn Fn(&str) -> bool| names.iter().find(|name| wanted(name));
    if find(&|name| name == WEIGHTS || name == WEIGHTS_INDEX).is_some() {
        return None;
    }
    if find(&|name| name == "adapter_config.json").is_some() {
        return Some(("it holds an adapter, not a model".to_owned(), ADAPTER));
    }
    let is_shard = |name: &str| name.ends_with(".safetensors") && name.contains("-of-");
    if let Some(name) = find(&is_shard) {
        return Some((format!("{name} is there, and {WEIGHTS_INDEX} is not"), SHARDS));
    }
    if let Some(name) = find(&|name| name.ends_with(".safetensors")) {
        let advice = "rename it, if it holds the whole model";
        return Some((format!("{name} is there, and {WEIGHTS} is not"), advice));
    }
    if let Some(name) = find(&|name| name.ends_with(".bin") || name.ends_with(".bin.index.json")) {
        return Some((format!("its weights are PyTorch's ({name}), which are not read"), PICKLE));
    }
    if find(&|name| name.ends_with(".pth")).is_some() {
        return Some(("its weights are in their makers' own layout".to_owned(), ORIGINAL));
    }
    let gguf = find(&|name| name.ends_with(".gguf"));
    gguf.map(|_| ("its weights are GGUF, which is not read".to_owned(), GGUF))
}

fn fault(path: &Path, found: impl Into<String>, advice: &str) -> Error {
    Error::Foreign { path: path.to_owned(), found: found.into(), advice: advice.to_owned() }
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    names
}

/// Whether a file begins with these bytes.
fn begins(path: &Path, with: &[u8]) -> bool {
    let mut found = vec![0; with.len()];
    open_regular(path).and_then(|mut file| file.read_exact(&mut found)).is_ok() && found == with
}
