//! `offramp card`: writes a model's card. Every number in it is measured, or read from a file.

use crate::progress::counted;
use crate::{eval, output, stories};
use anyhow::Result;
use offramp_eval::card::{CardFolder, CardWords, Facts, Measured, Scores};
use offramp_eval::{PerplexityOptions, TrainingReport};
use offramp_model::Formats;
use offramp_pipeline::ModelSource;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write a model's card, README.md in its folder, with every number measured
///
/// The folder gets README.md (a Hugging Face model card), exits.svg (perplexity and speed at every exit),
/// card.json (the same numbers for programs) and modeling_early_exit.py, which adds set_exit_layer in Python.
/// For a number that is missing, the card names the command that measures it.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp card runs/first-light --data valid.txt --license mit --dataset roneneldan/TinyStories"
)]
pub(crate) struct Arguments {
    /// A model folder, or a run folder
    model: PathBuf,
    /// Stories, or a folder that `offramp prepare` wrote, as for `offramp eval`: perplexity at every exit
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Stories that were not used for any choice: one more number, at full depth
    #[arg(long, value_name = "PATH")]
    untouched: Vec<PathBuf>,
    #[command(flatten)]
    reading: stories::Reading,
    /// The run folder with the journal and the recipe [default: the model's folder, or the one around it]
    #[arg(long, value_name = "FOLDER")]
    run: Option<PathBuf>,
    /// Samples of each exit's speed; with 0, speed is not measured
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Exit layers of the card's table, separated by commas; the plot has all [default: each quarter of the
    /// depth]
    #[arg(long, value_name = "E,…", value_delimiter = ',')]
    exits: Vec<usize>,
    /// The model's name [default: its folder's]
    #[arg(long)]
    name: Option<String>,
    /// Where the card's examples find the model: a folder, or a name on the Hub [default: its folder]
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
    let folder = CardFolder::open(&arguments.model, arguments.run.as_deref(), arguments.overwrite)?;
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
        let pipeline = ModelSource::Folder(folder.path().to_owned()).open(&Formats::default())?;
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
