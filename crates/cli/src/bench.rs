//! `offramp bench`: measures tokens per second at every exit, in every number format.

pub(crate) mod describe;
mod many_texts;

use crate::formats::Parts;
use crate::number::rate;
use crate::progress::counted;
use crate::speculate::DraftLayersArguments;
use crate::{output, shape, source};
use anyhow::Result;
use offramp_engine::Speculate;
use offramp_eval::{SpeedOptions, SpeedReport, Spread, speed};
use offramp_model::{Config, Format, Formats, Llama};
use serde::Serialize;
use std::path::PathBuf;

/// The number of passes of `--probe`.
const PASSES: usize = 9;
/// The seed of random weights.
const SEED: u64 = 0;

/// Measure tokens per second at every exit, in every number format
///
/// Batch 1: a prompt, then new tokens one by one, with all exits in turn. The memory bandwidth is probed
/// before and after every round. A round counts only if the two probes agree within 10 %; otherwise it is
/// repeated. The table shows medians, minimum and maximum, and a note if other programs keep the processors
/// busy. The prompt is made-up token ids, without special tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  offramp bench runs/first-light --exits 6,12,18,24\n  \
                  offramp bench --config recipes/llama3-earlyexit.toml --format bf16,int8,int4 --threads 1\n  \
                  offramp bench --texts 1,4,16 --new-tokens 64\n  \
                  offramp bench --probe")]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// A recipe (.toml) or a config.json: random weights in that shape, with as much context as needed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "model_folder"])]
    config: Option<PathBuf>,
    /// Only measure the memory bandwidth, on all threads
    #[arg(long, conflicts_with_all = ["model", "model_folder", "config"])]
    probe: bool,
    /// Number formats of the weights, separated by commas: f32, bf16, int8, int4, q8_0, q4_0, ternary
    /// [default: as the folder or file holds them, or f32]
    #[arg(long, value_name = "F,…", value_delimiter = ',')]
    format: Vec<Format>,
    #[command(flatten)]
    parts: Parts,
    /// Exit layers, separated by commas [default: each quarter of the depth]
    #[arg(long, value_name = "E,…", value_delimiter = ',')]
    exits: Vec<usize>,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt_tokens: usize,
    /// Tokens decoded after the prompt
    #[arg(long, value_name = "N", default_value_t = 128)]
    new_tokens: usize,
    /// Counted samples of each exit
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Numbers of texts at once, separated by commas: measures the tokens per second of all texts together,
    /// at the deepest of the exit layers, instead of each exit's speed for one text
    #[arg(long, value_name = "N,…", value_delimiter = ',', conflicts_with = "probe")]
    texts: Vec<usize>,
    /// With --texts, draft with the first layers: auto, off, or an exit layer and a draft length, as 6:4
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "auto", default_value = "off",
        requires = "texts")]
    speculate: Speculate,
    #[command(flatten)]
    layers: DraftLayersArguments,
    /// Also time a call for N tokens after the prompt, compared with one token; 0 for none
    #[arg(long, value_name = "N", default_value_t = 6)]
    verify: usize,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "output::path")]
    model: PathBuf,
    reports: &'a [SpeedReport],
}

/// The result of `--probe`.
#[derive(Serialize)]
struct ProbeAnswer {
    /// Bytes per second.
    bandwidth: Spread,
    samples: Vec<f64>,
    threads: usize,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    if arguments.probe {
        return probe(json);
    }
    let (path, config, source) = match &arguments.config {
        Some(file) => (file.clone(), shape::read(file)?, None),
        None => {
            let source = arguments.source.source()?;
            (source.path().to_owned(), source.config()?, Some(source))
        }
    };
    let options = options(arguments, &config);
    let load = |formats: &Formats| -> offramp_eval::Result<Llama> {
        match &source {
            Some(source) => Ok(source.load(formats)?),
            None => {
                let needed = options.positions().max(config.max_position_embeddings);
                let config = Config { max_position_embeddings: needed, ..config.clone() };
                Ok(Llama::random(config, SEED, formats)?)
            }
        }
    };
    if !arguments.texts.is_empty() {
        return many_texts::run(arguments, path, &options, &load, json);
    }
    let mut reports = Vec::new();
    for formats in formats(arguments) {
        let mut progress = counted(formats.layers.map_or("timed", Format::name), "samples");
        reports.push(speed(|| load(&formats), &options, &mut progress)?);
    }
    match json {
        true => output::json(&Answer { model: path, reports: &reports })?,
        false => output::text(&describe::table(&reports))?,
    }
    Ok(())
}

fn options(arguments: &Arguments, config: &Config) -> SpeedOptions {
    let exits = match arguments.exits.is_empty() {
        true => Config::quarters(config.num_hidden_layers),
        false => arguments.exits.clone(),
    };
    let Arguments { prompt_tokens, new_tokens, runs, verify, .. } = *arguments;
    SpeedOptions { exits, prompt_tokens, new_tokens, runs, verify }
}

/// The formats to measure, one after the other.
fn formats(arguments: &Arguments) -> Vec<Formats> {
    match arguments.format.is_empty() {
        true => vec![arguments.parts.formats(arguments.config.is_some().then_some(Format::F32))],
        false => arguments.format.iter().map(|&format| arguments.parts.formats(Some(format))).collect(),
    }
}

fn probe(json: bool) -> Result<()> {
    let probe = offramp_eval::memory_probe()?;
    let samples: Vec<f64> = (0..PASSES).map(|_| probe.read()).collect();
    let (bandwidth, threads) = (Spread::of(samples.clone()), offramp_engine::threads());
    if json {
        return Ok(output::json(&ProbeAnswer { bandwidth, samples, threads })?);
    }
    let [median, min, max] = [bandwidth.median, bandwidth.min, bandwidth.max].map(|bytes| rate(bytes / 1e9));
    Ok(output::text(&format!("memory read at {median} GB/s ({min}–{max}), threads {threads}\n"))?)
}
