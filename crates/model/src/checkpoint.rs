//! Checkpoint folders: writing them so that a killed process loses nothing, and finding them.
//!
//! Every file appears whole or not at all: it is written beside its target, synced and renamed.
//! [`replace_folder`] does the same for a folder of files that belong together.

mod checksum;
mod export_gguf;
mod quantize;
mod remote_code;
mod replace;
mod resolve;
mod tensors;
#[cfg(test)]
mod tests;

pub use crate::run_folder::{step_folder, steps};
pub use checksum::{Checksum, Checksums};
pub use export_gguf::export_gguf;
pub use quantize::{Quantized, quantize, quantize_gguf};
pub use remote_code::add_remote_code;
pub use replace::{free_space, remove_folder, remove_leftovers, replace_folder, write_atomically};
pub use resolve::{resolve, resolve_observed};
pub use tensors::{read_tensors, tensors_size, write_tensors};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::run_folder::{CONFIG, GENERATION, WEIGHTS};
use crate::tensor::TensorSpec;
use std::borrow::Cow;
use std::fs;
use std::path::Path;

/// Writes a Hugging Face folder of `f32` weights that stock `transformers` loads: `model.safetensors`,
/// `generation_config.json` and, last, the `config.json` that makes it a model. Returns the checksums of the
/// files.
///
/// `tensors` gives each tensor of [`Config::tensors`] in turn; one is written before the next is asked for.
///
/// # Errors
/// If `config` is impossible, a tensor has the wrong length, or a file cannot be written.
pub fn save<'a>(
    folder: &Path,
    config: &Config,
    tensors: &mut dyn FnMut(&TensorSpec) -> Cow<'a, [f32]>,
) -> Result<Checksums> {
    let path = folder.join(CONFIG);
    config.validate(&path)?;
    let config = &Config { quantization: None, ..config.clone() };
    fs::create_dir_all(folder).map_err(|error| Error::write(folder, error))?;
    let weights = write_tensors(&folder.join(WEIGHTS), &config.tensors(), tensors)?;
    let write_text = |name: &str, text: String| {
        write_atomically(&folder.join(name), |file| file.write_all(text.as_bytes()))
    };
    let generation = write_text(GENERATION, config.generation_json())?;
    let config = write_text(CONFIG, config.to_json())?;
    let files = [(WEIGHTS, weights), (GENERATION, generation), (CONFIG, config)];
    Ok(files.map(|(name, checksum)| (name.to_owned(), checksum)).into())
}
