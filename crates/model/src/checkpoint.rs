//! The checkpoint folder: writing it so that a killed process loses nothing, and finding it again.
//!
//! Every file appears under its name whole or not at all: it is written beside its target, handed to
//! the disk and renamed. [`replace_folder`] does the same for a folder of files that belong together.

mod checksum;
mod foreign;
mod hub;
mod quantize;
mod remote_code;
mod replace;
mod resolve;
mod room;
#[cfg(test)]
mod tests;

pub use crate::run_folder::{step_folder, steps};
pub use checksum::{Checksum, Checksums};
pub use quantize::{Quantized, quantize};
pub use remote_code::add_remote_code;
pub use replace::{free_space, remove_folder, remove_leftovers, replace_folder, write_atomically};
pub use resolve::resolve;
pub use room::tensors_size;

pub(crate) use foreign::no_weights;

use crate::config::{Config, TensorSpec};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::run_folder::{CONFIG, GENERATION};
use crate::weights::{Layout, SINGLE, Weights};
use replace::Unfinished;
use safetensors::tensor::{Metadata, TensorInfo};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;

/// Where tensors of a file begin, if all before them are of whole lines.
const CACHE_LINE: usize = 64;

/// Writes a Hugging Face folder of `f32` weights that stock `transformers` loads: `model.safetensors`,
/// `generation_config.json` and, last, the `config.json` that makes it a model. Returns what each file is.
///
/// `tensors` is asked for each tensor of [`Config::tensors`] in turn, and its answer is written before
/// the next is asked for.
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
    let weights = write_tensors(&folder.join(SINGLE), &config.tensors(), tensors)?;
    let write_text = |name: &str, text: String| {
        write_atomically(&folder.join(name), |file| file.write_all(text.as_bytes()))
    };
    let generation = write_text(GENERATION, config.generation_json())?;
    let config = write_text(CONFIG, config.to_json())?;
    let files = [(SINGLE, weights), (GENERATION, generation), (CONFIG, config)];
    Ok(files.map(|(name, checksum)| (name.to_owned(), checksum)).into())
}

/// Writes named `f32` tensors to a safetensors file, one after the other as `tensors` gives them.
///
/// # Errors
/// If a name comes twice, a tensor has the wrong length, or the file cannot be written.
pub fn write_tensors<'a>(
    path: &Path,
    specs: &[TensorSpec],
    tensors: &mut dyn FnMut(&TensorSpec) -> Cow<'a, [f32]>,
) -> Result<Checksum> {
    let header = header(path, floats(specs))?;
    let mut unfinished = Unfinished::create(path)?;
    unfinished.write(&(header.len() as u64).to_le_bytes())?;
    unfinished.write(&header)?;
    for spec in specs {
        let values = tensors(spec);
        if values.len() != spec.len() {
            return Err(Error::wrong_length(spec, values.len()));
        }
        unfinished.write(bytemuck::cast_slice(&values))?; // little-endian, as every machine this runs on
    }
    unfinished.publish()
}

/// Reads what [`write_tensors`] wrote, which must be exactly the tensors of `specs`: each in turn into the
/// slice that stands beside its spec.
///
/// # Errors
/// If the file cannot be read, is damaged, or holds anything else or anything that is not finite.
///
/// # Panics
/// If a slice is not of its spec's length.
pub fn read_tensors<'a>(
    path: &Path,
    specs: &[TensorSpec],
    into: impl IntoIterator<Item = &'a mut [f32]>,
) -> Result<()> {
    let file = Weights::open_file(path, specs)?;
    specs.iter().zip(into).try_for_each(|(spec, values)| file.read(spec, values))
}

/// The header of a file that holds these tensors one after the other, padded so that they begin at a cache line.
fn header<'a>(path: &Path, tensors: impl Iterator<Item = (&'a TensorSpec, Layout)>) -> Result<Vec<u8>> {
    let mut start = 0usize;
    let mut names = BTreeSet::new();
    let mut infos = Vec::new();
    for (spec, layout) in tensors {
        let end = layout.bytes().and_then(|bytes| start.checked_add(bytes));
        let too_large = || Error::safetensors(path, format!("{} {:?} is too large", spec.name, spec.shape));
        let (shape, data_offsets) = (layout.shape(spec), (start, end.ok_or_else(too_large)?));
        if !names.insert(&spec.name) {
            return Err(Error::DuplicateTensor { path: path.to_owned(), tensor: spec.name.clone() });
        }
        infos.push((spec.name.clone(), TensorInfo { dtype: layout.dtype(), shape, data_offsets }));
        start = data_offsets.1;
    }
    // What transformers looks for before it reads a file as PyTorch's.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos);
    let metadata = metadata.map_err(|error| Error::safetensors(path, error.to_string()))?;
    let mut header =
        serde_json::to_vec(&metadata).map_err(|error| Error::safetensors(path, error.to_string()))?;
    let length = size_of::<u64>();
    header.resize((length + header.len()).next_multiple_of(CACHE_LINE) - length, b' ');
    Ok(header)
}

/// Tensors of `f32`.
fn floats(specs: &[TensorSpec]) -> impl Iterator<Item = (&TensorSpec, Layout)> {
    specs.iter().map(|spec| (spec, Layout::new(spec, Format::F32)))
}

fn is_model(folder: &Path) -> bool {
    folder.join(CONFIG).is_file()
}
