//! A model as a GGUF file, which stock llama.cpp loads. What llama.cpp does not know stands in keys of ours:
//! one more tensor, and it would refuse the file.

use super::replace::write_atomically;
use crate::config::{BitLinear, Config, Family, ModelType};
use crate::error::{Error, Result};
use crate::gguf::{
    BITNET, EARLY_EXIT, ROPE_FREQS, ROPE_SCALING, RowOrder, gguf, llama_cpp, rope, scaling_keys,
};
use crate::layout::Values;
use crate::source::Source;
use crate::tensor::{TensorKind, TensorSpec};
use crate::ternary::Codes;
use crate::weights::Weights;
use offramp_gguf::{NewTensor, TensorType, Value, write};
use std::io;
use std::path::Path;

/// Rows that are encoded at a time.
const ROWS: usize = 64;
/// What the names of the layers' tensors begin with.
const LAYERS: &str = "model.layers.";

/// Writes a model as a GGUF file. Matrices are of the format `kind`; in `Q4_0` and `TQ2_0` the embedding and
/// the head are of `Q8_0`. `words`, a name and the keys of a tokenizer, go into the metadata.
///
/// # Errors
/// If llama.cpp has no architecture for the model, rows are no whole blocks, or the file cannot be written.
pub fn export_gguf(
    weights: &Weights,
    config: &Config,
    kind: TensorType,
    words: (&str, &[(String, Value)]),
    out: &Path,
) -> Result<()> {
    let architecture = architecture(config).map_err(|reason| gguf(out, &reason))?;
    if architecture == BITNET && kind == TensorType::Q4_0 {
        let reason = "a block of q4_0 has no two numbers that differ in their signs alone: take tq2_0";
        return Err(gguf(out, reason));
    }
    let (name, tokenizer) = words;
    let mut metadata = vec![
        ("general.architecture".to_owned(), Value::Text(architecture.to_owned())),
        ("general.name".to_owned(), Value::Text(name.to_owned())),
        ("general.file_type".to_owned(), Value::Unsigned(file_type(kind))),
        ("general.quantization_version".to_owned(), Value::Unsigned(2)),
    ];
    metadata.extend(keys(config, architecture).map_err(|reason| gguf(out, &reason))?);
    metadata.extend(tokenizer.iter().cloned());
    let specs = config.tensors();
    let factors = rope::factors(config.rope.scaling, config.rope.theta, config.head_dim);
    let mut tensors = Vec::new();
    for spec in &specs {
        tensors.push(tensor(spec, kind).map_err(|reason| gguf(out, &reason))?);
    }
    let rope = factors.as_ref().map(|factors| NewTensor {
        name: ROPE_FREQS.to_owned(),
        shape: vec![factors.len()],
        kind: TensorType::F32,
    });
    tensors.extend(rope);
    let mut failed = None;
    let written = write_atomically(out, |file| {
        let mut placed = write(file, &metadata, &tensors)?;
        for (spec, tensor) in specs.iter().zip(&tensors) {
            let order = RowOrder::of(config, &spec.name);
            let rows = values(weights, spec, config.bit_linear.is_some()).and_then(|values| {
                encode(&*values, spec, tensor.kind, order, &mut |bytes| placed.bytes(bytes))
            });
            if let Err(error) = rows {
                failed = Some(error);
                return Err(io::Error::other("a tensor cannot be read"));
            }
            placed.end()?;
        }
        if let Some(factors) = &factors {
            let mut bytes = Vec::new();
            TensorType::F32.encode(factors, &mut bytes);
            placed.bytes(&bytes)?;
            placed.end()?;
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => written.map(drop),
    }
}

/// Encodes a tensor, some rows at a time, in the order of the file.
fn encode(
    values: &Values<'_>,
    spec: &TensorSpec,
    kind: TensorType,
    order: RowOrder,
    put: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<()> {
    let width = spec.shape.last().copied().unwrap_or(1);
    // A vector that is reordered has a row for each value.
    let (rows, width) = match (spec.kind(), order) {
        (TensorKind::Matrix, _) | (_, RowOrder::Own) => (spec.len() / width, width),
        _ => (spec.len(), 1),
    };
    let (mut row_values, mut bytes) = (vec![0.0; width], Vec::new());
    for first in (0..rows).step_by(ROWS) {
        bytes.clear();
        for row in first..rows.min(first + ROWS) {
            values(order.origin(row) * width, &mut row_values)?;
            kind.encode(&row_values, &mut bytes);
        }
        put(&bytes).map_err(|error| Error::write(Path::new(&spec.name), error))?;
    }
    Ok(())
}

/// The values of a tensor; of a ternary matrix those of its codes.
fn values<'a>(weights: &'a Weights, spec: &TensorSpec, ternary: bool) -> Result<Box<Values<'a>>> {
    let of_layer = spec.kind() == TensorKind::Matrix && spec.name.starts_with(LAYERS);
    if !ternary || !of_layer {
        return weights.values(spec);
    }
    let Codes { codes, step } = weights.ternary(spec)?;
    Ok(Box::new(move |first, out| {
        out.iter_mut().zip(&codes[first..]).for_each(|(out, &code)| *out = f32::from(code) * step);
        Ok(())
    }))
}

fn tensor(spec: &TensorSpec, kind: TensorType) -> std::result::Result<NewTensor, String> {
    let name = llama_cpp(&spec.name).ok_or_else(|| format!("llama.cpp has no name for {}", spec.name))?;
    let outer = !spec.name.starts_with(LAYERS);
    let kind = match (spec.kind(), kind) {
        (TensorKind::Matrix, TensorType::Q4_0 | TensorType::TQ2_0) if outer => TensorType::Q8_0,
        (TensorKind::Matrix, kind) => kind,
        _ => TensorType::F32,
    };
    let width = spec.shape.last().copied().unwrap_or(1);
    if width % kind.block() != 0 {
        let (block, kind) = (kind.block(), kind.name());
        return Err(format!(
            "{} has rows of {width} values, and {kind} has blocks of {block}: take bf16 or f16",
            spec.name
        ));
    }
    Ok(NewTensor { name, shape: spec.shape.clone(), kind })
}

fn architecture(config: &Config) -> std::result::Result<&'static str, String> {
    if let Some(bit_linear) = config.bit_linear {
        return match (bit_linear == BitLinear::V1, config.tie_word_embeddings) {
            (true, true) => Ok(BITNET),
            (true, false) => {
                Err("llama.cpp's bitnet has no head but its embedding, and this one has".to_owned())
            }
            (false, _) => Err("llama.cpp has no architecture for rotated ternary layers".to_owned()),
        };
    }
    Ok(match config.family.model_type {
        ModelType::Llama | ModelType::Mistral => "llama",
        ModelType::Qwen2 => "qwen2",
        ModelType::Qwen3 => "qwen3",
        ModelType::SmolLm3 => "smollm3",
    })
}

fn keys(config: &Config, architecture: &str) -> std::result::Result<Vec<(String, Value)>, String> {
    let whole = |number: usize| Value::Unsigned(number as u64);
    let mut keys = vec![
        ("block_count", whole(config.num_hidden_layers)),
        ("context_length", whole(config.max_position_embeddings)),
        ("embedding_length", whole(config.hidden_size)),
        ("feed_forward_length", whole(config.intermediate_size)),
        ("attention.head_count", whole(config.num_attention_heads)),
        ("attention.head_count_kv", whole(config.num_key_value_heads)),
        ("attention.key_length", whole(config.head_dim)),
        ("attention.value_length", whole(config.head_dim)),
        ("attention.layer_norm_rms_epsilon", Value::Float(f64::from(config.rms_norm_eps as f32))),
        ("rope.dimension_count", whole(config.head_dim)),
        ("rope.freq_base", Value::Float(f64::from(config.rope.theta as f32))),
        ("vocab_size", whole(config.vocab_size)),
    ];
    let (scaling, parameters) = scaling_keys(config)?;
    keys.extend(scaling);
    let every_fourth = (0..config.num_hidden_layers).filter(|layer| layer % 4 == 3);
    if config.family.model_type == ModelType::SmolLm3
        && !config.family.no_rope_layers.iter().copied().eq(every_fourth)
    {
        return Err(
            "llama.cpp has no key for layers without rotary positions: it takes every fourth".to_owned()
        );
    }
    let Family { attention_bias, mlp_bias, .. } = config.family;
    if (attention_bias || mlp_bias) && architecture != "llama" {
        return Err(format!("llama.cpp reads no such biases in a {architecture}"));
    }
    if config.family.sliding_window.is_some() {
        return Err("llama.cpp has no key for the sliding window of such a model".to_owned());
    }
    let mut keys: Vec<_> =
        keys.into_iter().map(|(key, value)| (format!("{architecture}.{key}"), value)).collect();
    keys.extend(parameters.map(|json| (ROPE_SCALING.to_owned(), Value::Text(json))));
    if let Some(early_exit) = &config.early_exit {
        let json = serde_json::to_string(early_exit).map_err(|error| error.to_string())?;
        keys.push((EARLY_EXIT.to_owned(), Value::Text(json)));
    }
    Ok(keys)
}

/// llama.cpp's number of a file's format.
fn file_type(kind: TensorType) -> u64 {
    match kind {
        TensorType::F16 => 1,
        TensorType::Q4_0 => 2,
        TensorType::Q8_0 => 7,
        TensorType::BF16 => 32,
        TensorType::TQ2_0 => 37,
        _ => 0,
    }
}
