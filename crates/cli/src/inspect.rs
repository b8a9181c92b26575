//! `offramp inspect`: shows what is in a checkpoint, or what a recipe would make.

use crate::number::{bytes, fixed, grouped};
use crate::source::carried;
use crate::{output, shape, source};
use anyhow::Result;
use offramp_model::journal::{self, Record};
use offramp_model::run_folder::JOURNAL;
use offramp_model::{BitLinear, Config, Kept, Runs};
use offramp_pipeline::ModelSource;
use offramp_train::memory::Need;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Show what is in a checkpoint, or what a recipe would make
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp inspect runs/first-light\n  offramp inspect recipes/llama3-earlyexit.toml"
)]
pub(crate) struct Arguments {
    /// A model folder, a run folder, or a recipe (.toml) [default: the model that comes with offramp]
    path: Option<PathBuf>,
}

#[derive(Serialize)]
struct Answer {
    #[serde(serialize_with = "output::path")]
    path: PathBuf,
    parameters: u64,
    parts: BTreeMap<&'static str, u64>,
    config: serde_json::Value,
    /// Positions that a text may take.
    context: usize,
    #[serde(skip)]
    bit_linear: Option<BitLinear>, // also in the config's JSON
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<WeightFiles>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tokenizer_vocab_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<Training>,
    /// Bytes of memory that training a recipe needs.
    #[serde(skip_serializing_if = "Option::is_none")]
    training_memory: Option<u64>,
}

#[derive(Serialize)]
struct WeightFiles {
    bytes: u64,
    /// The bits of the files, divided by the number of parameters.
    bits_per_weight: f64,
    formats: BTreeMap<String, u64>,
    /// How the matrices of a GGUF file run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    runs: Vec<Runs>,
}

/// The state of a run, from its journal.
#[derive(Serialize)]
struct Training {
    step: u64,
    tokens: u64,
    final_loss: f64,
    bits_per_byte: Option<f64>,
    /// The folder of the checkpoint with the lowest validation loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    best: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let answer = match arguments.path.as_deref() {
        None => of_model(&carried(), None)?,
        Some(path) if shape::is_recipe(path) => {
            let (recipe, config) = shape::of_recipe(path)?;
            let training_memory = Some(Need::of(&recipe, &config).bytes());
            Answer { training_memory, ..answer(path.to_owned(), &config) }
        }
        Some(path) => of_model(&source::resolve(path)?, Some(&path.join(JOURNAL)))?,
    };
    match json {
        true => output::json(&answer)?,
        false => output::text(&describe(&answer))?,
    }
    Ok(())
}

fn of_model(source: &ModelSource, journal: Option<&Path>) -> Result<Answer> {
    let config = source.config()?;
    let weights = source.weights(&config)?;
    let tokenizer = source.has_tokenizer().then(|| source.tokenizer()).transpose()?;
    let training = journal.filter(|journal| journal.exists()).map(training).transpose()?.flatten();
    Ok(Answer {
        weights: Some(WeightFiles {
            bytes: weights.bytes(),
            bits_per_weight: 8.0 * weights.bytes() as f64 / config.parameter_count() as f64,
            formats: weights.formats(),
            runs: weights.runs(&config)?,
        }),
        tokenizer_vocab_size: tokenizer.map(|tokenizer| tokenizer.vocab_size()),
        training,
        ..answer(source.path().to_owned(), &config)
    })
}

fn answer(path: PathBuf, config: &Config) -> Answer {
    let mut parts = BTreeMap::new();
    for spec in config.tensors() {
        let part = match spec.name.as_str() {
            "model.embed_tokens.weight" => "embed_tokens",
            "lm_head.weight" => "lm_head",
            "model.norm.weight" => "norm",
            _ => "layers",
        };
        *parts.entry(part).or_default() += spec.len() as u64;
    }
    let json = serde_json::from_str(&config.to_json()).unwrap_or_default();
    let parameters = config.parameter_count();
    Answer {
        path,
        parameters,
        parts,
        config: json,
        context: config.context(),
        bit_linear: config.bit_linear,
        weights: None,
        tokenizer_vocab_size: None,
        training: None,
        training_memory: None,
    }
}

/// The last step, the last validation and the best checkpoint of a journal; `None` before the first step.
fn training(journal: &Path) -> Result<Option<Training>> {
    let records = journal::read(journal)?;
    let bits_per_byte = records.iter().rev().find_map(|record| match record {
        Record::Validation(validation) => Some(validation.bits_per_byte),
        _ => None,
    });
    let best = records.iter().rev().find_map(|record| match record {
        Record::Checkpoint(checkpoint) => checkpoint.best.clone(),
        _ => None,
    });
    Ok(records.iter().rev().find_map(|record| match record {
        Record::Step(step) => {
            let (final_loss, tokens) = (step.final_loss, step.tokens);
            Some(Training { step: step.step, tokens, final_loss, bits_per_byte, best: best.clone() })
        }
        _ => None,
    }))
}

/// How the matrices of one format run, in a line.
fn how(runs: &Runs) -> String {
    let Runs { stored, format, kept, .. } = runs;
    match kept {
        Kept::Values if stored.to_lowercase() == format.name() => format!("{stored} runs as it is"),
        Kept::Values => format!("{stored} runs as {format}, every value as it is"),
        Kept::Codes => format!("{stored} runs in the file's codes, as {format}"),
        Kept::Rounded => format!("{stored} is converted to {format} (rounded once more)"),
    }
}

fn describe(answer: &Answer) -> String {
    let key = |key: &str| answer.config[key].to_string();
    let layers = key("num_hidden_layers");
    let mut lines =
        vec![("path", answer.path.display().to_string()), ("parameters", grouped(answer.parameters))];
    for (part, parameters) in &answer.parts {
        let share = format!("{:.1} %", 100.0 * *parameters as f64 / answer.parameters as f64);
        lines.push(("", format!("{part:12} {:>15} {share:>7}", grouped(*parameters))));
    }
    lines.push(("layers", format!("{layers}, so exit layers 1 to {layers}")));
    if let Some(bit_linear) = answer.bit_linear {
        let rotated = if bit_linear.hadamard { ", rotated before o_proj and down_proj" } else { "" };
        let (name, bits) = (bit_linear.name(), bit_linear.activations.bits());
        lines.push(("projections", format!("ternary, activations in {bits} bits{rotated}: a {name}")));
    }
    let (heads, key_heads) = (key("num_attention_heads"), key("num_key_value_heads"));
    lines
        .push(("width", format!("hidden {}, feed-forward {}", key("hidden_size"), key("intermediate_size"))));
    lines.push(("heads", format!("{heads} of {}, {key_heads} of keys and values", key("head_dim"))));
    let tied = if key("tie_word_embeddings") == "true" { "tied" } else { "untied" };
    lines.push(("vocabulary", format!("{}, head {tied}", key("vocab_size"))));
    lines.push(("context", answer.context.to_string()));
    if let Some(block) = answer.config["early_exit"].as_object() {
        let early_exit: Vec<_> = block.iter().map(|(key, value)| format!("{key} {value}")).collect();
        lines.push(("early exit", early_exit.join(", ").replace('"', "")));
    }
    if let Some(weights) = &answer.weights {
        let formats: Vec<_> =
            weights.formats.iter().map(|(name, values)| format!("{} in {name}", grouped(*values))).collect();
        let (size, bits) = (bytes(weights.bytes), weights.bits_per_weight);
        lines.push(("weights", format!("{size}, {bits:.2} bits a weight: {}", formats.join(", "))));
        let names = ["matrices"].into_iter().chain(std::iter::repeat(""));
        lines.extend(names.zip(weights.runs.iter().map(how)));
    }
    if let Some(needed) = answer.training_memory {
        lines.push(("training", format!("needs about {} of memory", bytes(needed))));
    }
    if let Some(size) = answer.tokenizer_vocab_size {
        lines.push(("tokenizer", format!("{} tokens", grouped(size as u64))));
    }
    if let Some(training) = &answer.training {
        let bits = training
            .bits_per_byte
            .map_or(String::new(), |bits| format!(", validation {} bits/byte", fixed(bits, 3)));
        let (step, tokens) = (grouped(training.step), grouped(training.tokens));
        lines.push((
            "trained",
            format!("{step} steps, {tokens} tokens, loss {}{bits}", fixed(training.final_loss, 3)),
        ));
        if let Some(best) = &training.best {
            lines.push(("best", format!("{best}, by its validation loss")));
        }
    }
    lines.iter().map(|(name, value)| format!("{name:12}{value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_model::Format;

    #[test]
    fn what_is_rounded_once_more_is_said() {
        for (stored, format, kept, said) in [
            ("Q6_K", Format::Int8, Kept::Rounded, "Q6_K is converted to int8 (rounded once more)"),
            ("Q8_0", Format::Q8_0, Kept::Codes, "Q8_0 runs in the file's codes, as q8_0"),
            ("TQ2_0", Format::Ternary, Kept::Codes, "TQ2_0 runs in the file's codes, as ternary"),
            ("F16", Format::F32, Kept::Values, "F16 runs as f32, every value as it is"),
            ("F32", Format::F32, Kept::Values, "F32 runs as it is"),
        ] {
            assert_eq!(how(&Runs { stored: stored.to_owned(), format, kept, values: 1 }), said);
        }
    }
}
