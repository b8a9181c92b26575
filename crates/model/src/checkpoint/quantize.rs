//! Converts a checkpoint folder to other number formats, piece by piece.

use super::replace::{SummedWriter, replace_folder, write_atomically};
use super::tensors::header;
use crate::config::{Config, Quantization};
use crate::error::{Error, Result, open_regular};
use crate::format::{Format, Formats};
use crate::gguf::Gguf;
use crate::layout::{Layout, Values};
use crate::run_folder::{CONFIG, EXITS, GENERATION, JOURNAL, WEIGHTS};
use crate::source::Source;
use crate::storage::Pages;
use crate::tensor::{EMBEDDING, TensorKind, TensorSpec};
use crate::weights::{Weights, bitnet};
use std::fs;
use std::io;
use std::path::Path;

/// Floats that are converted at a time.
const PIECE: usize = 1 << 21;

/// Files that are copied if they exist. A card is not: its numbers were measured with other weights.
const COMPANIONS: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    GENERATION,
    EXITS,
    JOURNAL,
];

/// What [`quantize`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Quantized {
    /// The formats of the new folder.
    pub formats: Formats,
    /// Bytes of the weights read.
    pub bytes_before: u64,
    /// Bytes of the weights written.
    pub bytes_after: u64,
}

/// A tensor of the new folder, and the tensor that it is made from.
struct Part {
    spec: TensorSpec,
    from: TensorSpec,
    layout: Layout,
    made: Made,
}

/// How a tensor is made from the other.
#[derive(Clone, Copy, PartialEq)]
enum Made {
    /// From its values, piece by piece.
    Encoded,
    /// The packed codes of a ternary matrix.
    Packed,
    /// The scale that stands beside them.
    Scale,
}

/// Writes the model of the folder `from` to a new folder `to`, with its weights in `formats`; a part whose
/// format is not given keeps its own. Integers can become floats again, but not other integers. Stock
/// `transformers` loads a folder of floats; a quantized one loads here without conversion. Both load a
/// `bitskip-v1` whose layers are packed as `bitnet` packs them. Packed layers become floats that are rounded
/// to the same codes and steps. `progress` gets the bytes written so far and the bytes of all weights.
///
/// Norms and biases stay in `f32`. The embedding is in `bf16`, unless the layers are in `f32` or it is a tied
/// head.
///
/// # Errors
/// If `from` is not a good checkpoint or holds other integers than asked for, or `to` exists or cannot be
/// written; then nothing of it is left.
pub fn quantize(
    from: &Path,
    to: &Path,
    formats: &Formats,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Quantized> {
    let config = Config::read(&from.join(CONFIG))?;
    config.check_folder_formats(formats, from)?;
    let weights = Weights::open(from, &config)?;
    let beside =
        |folder: &Path| COMPANIONS.iter().try_for_each(|name| copy(&from.join(name), &folder.join(name)));
    write_folder((config, weights), to, formats, &beside, progress)
}

/// As [`quantize`], from a GGUF file. `beside` writes what belongs into the folder beside weights and config,
/// such as the tokenizer.
///
/// # Errors
/// As [`quantize`], and what `beside` returns.
pub fn quantize_gguf<E: From<Error>>(
    from: &Path,
    to: &Path,
    formats: &Formats,
    beside: &dyn Fn(&Path) -> std::result::Result<(), E>,
    progress: &mut dyn FnMut(usize, usize),
) -> std::result::Result<Quantized, E> {
    let gguf = Gguf::open(from)?;
    let config = gguf.config()?;
    config.check_folder_formats(formats, from)?;
    let weights = Weights::of_gguf(gguf, &config)?;
    let with_generation = |folder: &Path| {
        let text = config.generation_json();
        write_atomically(&folder.join(GENERATION), |file| file.write_all(text.as_bytes()))?;
        beside(folder)
    };
    write_folder((config.clone(), weights), to, formats, &with_generation, progress)
}

/// Writes a model folder, whole or not at all.
fn write_folder<E: From<Error>>(
    (config, weights): (Config, Weights),
    to: &Path,
    formats: &Formats,
    beside: &dyn Fn(&Path) -> std::result::Result<(), E>,
    progress: &mut dyn FnMut(usize, usize),
) -> std::result::Result<Quantized, E> {
    if to.exists() {
        return Err(Error::Exists { path: to.to_owned() }.into());
    }
    let (layers, head) = held(&config, &weights, formats)?;
    let held = Formats { layers: Some(layers), head: Some(head), ..*formats };
    config.check_folder_formats(&held, weights.path())?;
    let parts = parts(&config, layers, head, &weights)?;
    let config = Config { quantization: Quantization::of(layers, head), ..config };
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|error| Error::write(to, error))?;
    }
    replace_folder(to, |folder| {
        write_parts(&folder.join(WEIGHTS), &weights, &parts, progress)?;
        beside(folder)?;
        let floats = if layers == Format::Ternary { head } else { layers };
        let json = config.to_json_of(if floats == Format::F32 { Format::F32 } else { Format::Bf16 });
        write_atomically(&folder.join(CONFIG), |file| file.write_all(json.as_bytes()))?;
        Ok::<(), E>(())
    })?;
    Ok(Quantized {
        formats: Formats { layers: Some(layers), head: Some(head), kv_cache: formats.kv_cache },
        bytes_before: weights.bytes(),
        bytes_after: Weights::open(to, &config)?.bytes(),
    })
}

/// The formats of layers and head; those that are not given are the folder's.
fn held(config: &Config, weights: &Weights, formats: &Formats) -> Result<(Format, Format)> {
    let specs = config.tensors();
    let is_matrix = |spec: &&TensorSpec| spec.kind() == TensorKind::Matrix && !spec.is_embedding();
    let layer = specs.iter().find(is_matrix).expect("a valid config has a layer");
    let format = |wanted: Option<Format>, spec: &TensorSpec| wanted.map_or_else(|| weights.format(spec), Ok);
    // Beside packed layers a head keeps its format unless one is given.
    let wanted = if formats.layers == Some(Format::Ternary) { formats.head } else { formats.of_head() };
    let head = config.head_source(wanted);
    Ok((format(formats.layers, layer)?, format(wanted, &head)?))
}

/// The tensors of the new file. Strips come first, since they fill whole cache lines, then floats, widest
/// first, so that everything is aligned. Packed codes need no alignment and come last.
///
/// # Errors
/// If a matrix cannot be packed.
fn parts(config: &Config, layers: Format, head: Format, weights: &Weights) -> Result<Vec<Part>> {
    let head_source = config.head_source(Some(head));
    let mut parts: Vec<_> = config
        .tensors()
        .into_iter()
        .map(|spec| {
            let format = match &spec.name[..] {
                EMBEDDING => config.new_embedding(Some(layers), Some(head)),
                _ if spec.name == config.head_tensor().name => head,
                _ if spec.kind() != TensorKind::Matrix => Format::F32,
                _ => layers,
            };
            let made = if format == Format::Ternary { Made::Packed } else { Made::Encoded };
            Part { layout: Layout::new(&spec, format), from: spec.clone(), spec, made }
        })
        .collect();
    if config.tie_word_embeddings && head.strips().is_some() {
        let spec = config.head_tensor();
        parts.push(Part { layout: Layout::new(&spec, head), from: head_source, spec, made: Made::Encoded });
    }
    let packed: Vec<_> =
        parts.iter().filter(|part| part.made == Made::Packed).map(|part| part.spec.clone()).collect();
    for from in packed {
        if bitnet::packed_shape(&from).is_none() {
            return Err(weights.not_in_quarters(&from));
        }
        let spec = bitnet::scale(&from);
        parts.push(Part { layout: Layout::new(&spec, Format::F32), from, spec, made: Made::Scale });
    }
    parts.sort_by_key(|part| match part.layout.format {
        Format::F32 => 1,
        Format::Bf16 => 2,
        Format::Ternary => 3,
        _ => 0,
    });
    Ok(parts)
}

fn write_parts(
    path: &Path,
    weights: &Weights,
    parts: &[Part],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<()> {
    let header = header(path, parts.iter().map(|part| (&part.spec, part.layout)))?;
    let total = parts.iter().filter_map(|part| part.layout.bytes()).sum();
    let mut file = SummedWriter::create(path)?;
    file.write(&(header.len() as u64).to_le_bytes())?;
    file.write(&header)?;
    let mut done = 0;
    for part in parts {
        let Part { spec, from, layout, .. } = part;
        if part.made != Made::Encoded {
            let codes = weights.ternary(from)?;
            let bytes = match part.made {
                Made::Scale => (1.0 / codes.step).to_le_bytes().to_vec(),
                _ => bitnet::pack(&codes.codes),
            };
            file.write(&bytes)?;
            done += bytes.len();
            progress(done, total);
            continue;
        }
        let copied = layout.format.strips().is_some() && weights.format(from)? == layout.format;
        let piece = layout.strip_bytes() * (PIECE / layout.strip_values().max(1)).max(1);
        let bytes = layout.checked_bytes(spec)?;
        let mut pages = Pages::new(piece.min(bytes)).map_err(|_| Error::memory(spec, piece as u64))?;
        let values: Box<Values<'_>> = weights.values(from)?;
        for start in (0..bytes).step_by(piece.max(1)) {
            let out = &mut pages.bytes_mut()[..piece.min(bytes - start)];
            match copied {
                true => weights.bytes_of(from, start, out)?,
                false => layout.encode(&*values, start / layout.strip_bytes(), out)?,
            }
            file.write(out)?;
            done += out.len();
            progress(done, total);
        }
    }
    file.publish().map(drop)
}

/// Copies a file, if there is one.
fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    let mut file = open_regular(from).map_err(|error| Error::read(from, error))?;
    write_atomically(to, |to| io::copy(&mut file, to).map(drop)).map(drop)
}
