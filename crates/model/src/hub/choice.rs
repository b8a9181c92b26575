//! Which files of a model on the hub are needed.

use super::gguf_files;
use crate::error::{Error, Result};
use crate::foreign;
use crate::run_folder::{CONFIG, EXITS, GENERATION, TOKENIZER, TOKENIZER_CONFIG};
use offramp_hub::{Id, Listing, RemoteFile};
use std::path::PathBuf;

/// What a model on the hub is.
#[derive(Debug)]
pub(super) enum Choice {
    /// A folder with a config and safetensors.
    Folder,
    /// A GGUF file, or the parts of one in their order.
    Gguf(Vec<RemoteFile>),
}

/// The files of a tokenizer, of its templates, of the sampling defaults, and of exits over the model.
const SMALL: [&str; 7] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    GENERATION,
    EXITS,
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
];
/// Of these `transformers` makes a `tokenizer.json`; a message says how.
const SLOW: [&str; 4] = ["tokenizer.model", "spiece.model", "vocab.json", "merges.txt"];
/// The folder of further templates.
const TEMPLATES: &str = "additional_chat_templates/";

/// The small files that a model has.
pub(super) fn small_files(listing: &Listing) -> impl Iterator<Item = &str> {
    let slow = !listing.has(TOKENIZER);
    listing.files.iter().map(|file| &*file.path).filter(move |path| {
        SMALL.contains(path)
            || (slow && SLOW.contains(path))
            || (path.starts_with(TEMPLATES) && path.ends_with(".jinja"))
    })
}

/// Chooses by the names of the files, before any is downloaded.
///
/// # Errors
/// If there is nothing that runs here, or no such file.
pub(super) fn choose(id: &Id, listing: &Listing) -> Result<Choice> {
    let names: Vec<String> = listing.files.iter().map(|file| file.path.clone()).collect();
    if id.file.is_none() && listing.has(CONFIG) {
        return match foreign::found_without_weights(&names) {
            None => Ok(Choice::Folder),
            Some(_) if names.iter().any(|name| super::is_gguf(name)) => gguf(id, listing, &names),
            Some((found, advice)) => Err(unfit(id, found, advice)),
        };
    }
    if id.file.is_none()
        && !names.iter().any(|name| super::is_gguf(name))
        && let Some((found, advice)) = foreign::found_without_config(&names)
    {
        return Err(unfit(id, found.to_owned(), advice));
    }
    gguf(id, listing, &names)
}

fn gguf(id: &Id, listing: &Listing, names: &[String]) -> Result<Choice> {
    let chosen = gguf_files::choose(id, names)?;
    let find = |name: &String| listing.files.iter().find(|file| file.path == *name).cloned();
    Ok(Choice::Gguf(chosen.iter().filter_map(find).collect()))
}

/// The error of a model that has to be changed before it runs here.
fn unfit(id: &Id, found: String, advice: &str) -> Error {
    let advice = format!("`hf download {} --local-dir FOLDER` gets it; then {advice}", id.repository());
    Error::Foreign { path: PathBuf::from(id.to_string()), found, advice }
}
