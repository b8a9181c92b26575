//! `offramp export`: writes a model as a GGUF file.

use crate::number::bytes;
use crate::output::{self, note};
use crate::source;
use anyhow::{Context, Result};
use offramp_model::run_folder;
use offramp_pipeline::export_gguf;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};

/// Write a model as a GGUF file, which llama.cpp loads
///
/// The file holds the weights, the tokenizer and the chat template. Its exits stand in keys of ours, so that
/// offramp finds them again. In q4_0 and tq2_0 the embedding and the head are in q8_0.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp export --gguf story.gguf --type q8_0\n  offramp export runs/first-light --gguf first-light.gguf --type bf16"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    gguf: PathBuf,
    /// Number format of the matrices: f32, f16, bf16, q8_0, q4_0 or tq2_0
    #[arg(long = "type", value_name = "F", default_value = "bf16")]
    kind: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "output::path")]
    gguf: &'a Path,
    #[serde(rename = "type")]
    kind: String,
    bytes: u64,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let kind = offramp_pipeline::written_type(&arguments.kind)
        .with_context(|| format!("--type is {}: give f32, f16, bf16, q8_0, q4_0 or tq2_0", arguments.kind))?;
    let out = &arguments.gguf;
    anyhow::ensure!(!out.exists(), "{} is there: give another name, or remove it", out.display());
    let source = arguments.source.source()?;
    export_gguf(&source, kind, out)?;
    if source.path().join(run_folder::EXITS).is_file() {
        note("the adapters of its exits are left out: a GGUF file has no place for them");
    }
    let size = fs::metadata(out).map_or(0, |file| file.len());
    match json {
        true => output::json(&Answer { gguf: out, kind: kind.name(), bytes: size })?,
        false => output::text(&format!("{}: {}, {}\n", out.display(), kind.name(), bytes(size)))?,
    }
    Ok(())
}
