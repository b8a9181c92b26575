//! `offramp card`: writes a model's card. Every number in it is measured, or read from a file.

use crate::progress::counted;
use crate::{eval, output, source, stories};
use anyhow::Result;
use offramp_eval::card::{CardFolder, CardWords, Facts, Measured, Scores};
use offramp_eval::{PerplexityOptions, TrainingReport};
use offramp_model::Formats;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write a model's card, README.md in its folder (of a GGUF file: in --out), with every number measured
///
/// The folder gets README.md (a Hugging Face model card), exits.svg (perplexity and speed at every exit),
/// card.json (the same numbers for programs) and modeling_early_exit.py, which adds set_exit_layer in Python.
/// For a number that is missing, the card names the command that measures it. A GGUF file has no folder and
/// no Python class: --out names the folder of its card.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp card runs/first-light --data valid.txt --license mit --dataset roneneldan/TinyStories\n  offramp card first-light.gguf --out first-light-card --data valid.txt"
)]
pub(crate) struct Arguments {
    /// A model folder, a run folder, a GGUF file, or a GGUF file on the hub
    model: PathBuf,
    /// The folder to write the card of a GGUF file into; it is created if it does not exist
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Stories, or a folder that `offramp prepare` wrote, as for `offramp eval`: perplexity at every exit
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Stories that were not used for any choice: one more number, at full depth
    #[arg(long, value_name = "PATH")]
    untouched: Vec<PathBuf>,
    #[command(flatten)]
    reading: stories::Reading,
    /// The run folder with the journal and the recipe [default: the model's folder, or the one around it; of
    /// a GGUF file none]
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// Samples of each exit's speed; with 0, speed is not measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Exit layers of the card's table, separated by commas; the plot has all [default: each quarter of the
    /// depth]
    #[arg(long, value_name = "E,…", value_delimiter = ',')]
    exits: Vec<usize>,
    /// The model's name [default: its folder's or file's]
    #[arg(long)]
    name: Option<String>,
    /// Where the card's examples find the model: a folder, a file, or a name on the Hub [default: its place
    /// here]
    #[arg(long, value_name = "PLACE")]
    place: Option<String>,
    /// The licence, as the Hub names it: mit
    #[arg(long, value_name = "NAME")]
    license: Option<String>,
    /// The training data, as the Hub names it: roneneldan/TinyStories
    #[arg(long, value_name = "NAME")]
    dataset: Option<String>,
    /// The language of its text: en
    #[arg(long, value_name = "CODE")]
    language: Option<String>,
    /// Replace a README.md that offramp did not write
    #[arg(long)]
    overwrite: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "output::path")]
    card: &'a Path,
    measured: &'a Measured,
    training: Option<&'a TrainingReport>,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let (run, out) = (arguments.run.as_deref(), arguments.out.as_deref());
    let folder = CardFolder::open(source::resolve(&arguments.model)?, run, out, arguments.overwrite)?;
    arguments.exits.iter().try_for_each(|&exit| folder.config().check_exit_layer(exit))?;
    let measured = measure(arguments, &folder)?;
    let facts = Facts {
        license: arguments.license.clone(),
        dataset: arguments.dataset.clone(),
        language: arguments.language.clone(),
    };
    let (name, place, exits) = (arguments.name.clone(), arguments.place.clone(), arguments.exits.clone());
    let (card, training) = folder.write(&CardWords { name, place, facts, exits }, &measured)?;
    match json {
        true => output::json(&Answer { card: &card, measured: &measured, training: training.as_ref() })?,
        false => output::text(&format!("{}\n", card.display()))?,
    }
    Ok(())
}

fn measure(arguments: &Arguments, folder: &CardFolder) -> Result<Measured> {
    let score = |data: &[PathBuf], exits: Vec<usize>| -> Result<Option<Scores>> {
        if data.is_empty() {
            return Ok(None);
        }
        let pipeline = folder.source().open(&Formats::default())?;
        let stream = stories::open(data, &arguments.reading, pipeline.tokenizer(), u64::MAX)?;
        let options = PerplexityOptions { exits, ..Default::default() };
        let exits = eval::score(&pipeline, &stream, &options)?;
        Ok(Some(Scores { data: Scores::name(data), exits }))
    };
    let validation = score(&arguments.data, Vec::new())?;
    let full = vec![folder.config().num_hidden_layers];
    let untouched = score(&arguments.untouched, full)?;
    let speed = match arguments.runs {
        0 => None,
        runs => Some(folder.time(runs, &mut counted("timed", "samples"))?),
    };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Measured { version, validation, untouched, speed })
}
