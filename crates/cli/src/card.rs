//! `offramp card`: writes a model's card. Every number in it is measured, or read from a file.

use crate::plot;
use crate::progress::counted;
use crate::{eval, output, stories};
use anyhow::{Context, Result};
use offramp_eval::card::{Card, EXITS_PLOT, Facts, Measured, Scores, SpeedFigures};
use offramp_eval::{PerplexityOptions, SpeedOptions, TrainingReport};
use offramp_model::run_folder::{CONFIG, JOURNAL, MODEL, RECIPE, STATE, TOKENIZER, TOKENIZER_CONFIG};
use offramp_model::{Config, Formats, Llama, Weights, checkpoint};
use offramp_pipeline::ModelSource;
use offramp_text::Tokenizer;
use serde::Serialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The card, and beside it the file of its measurements.
const CARD: &str = "README.md";
const MEASURED: &str = "card.json";
/// Every card of ours contains these words. A `README.md` without them belongs to somebody else.
const OURS: &str = "`offramp card`";
/// The Python module that adds `set_exit_layer`.
const MODULE: &str = "modeling_early_exit";

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
    let folder = checkpoint::resolve(&arguments.model)?;
    let path = folder.join(CARD);
    if !arguments.overwrite {
        refuse_another_s(&path)?;
    }
    if folder.join(STATE).exists() {
        let folder = folder.display();
        anyhow::bail!(
            "{folder} is a checkpoint that a run goes on from, and a card would change it: finish the run and give its \
             model/, which `offramp train RECIPE --resume --best` makes the best checkpoint"
        );
    }
    let config = Config::read(&folder.join(CONFIG))?;
    arguments.exits.iter().try_for_each(|&exit| config.check_exit_layer(exit))?;
    let exits = match arguments.exits.is_empty() {
        true => Config::quarters(config.num_hidden_layers),
        false => arguments.exits.clone(),
    };
    let weights = Weights::open(&folder, &config)?;
    let formats: Vec<_> = weights.formats().into_keys().collect();
    let run = run_folder(arguments, &folder);
    let training = read_journal(run.as_deref())?;
    let recipe = run.and_then(|run| fs::read_to_string(run.join(RECIPE)).ok());
    let measured = measure(arguments, &folder, &config)?;
    let (named, place) = (name(&folder), folder.display().to_string());
    let card = Card {
        name: arguments.name.as_deref().unwrap_or(&named),
        place: arguments.place.as_deref().unwrap_or(&place),
        config: &config,
        weights: (formats.join(", "), weights.bytes()),
        facts: Facts {
            license: arguments.license.clone(),
            dataset: arguments.dataset.clone(),
            language: arguments.language.clone(),
        },
        measured: measured.clone(),
        exits: &exits,
        training: training.as_ref(),
        recipe: recipe.as_deref(),
    };
    write(&folder, &card)?;
    match json {
        true => output::json(&Answer { card: &path, measured: &measured, training: training.as_ref() })?,
        false => output::text(&format!("{}\n", path.display()))?,
    }
    Ok(())
}

/// Refuses to replace a `README.md` that is not a card of ours. Reads it as bytes, because it may not be
/// UTF-8.
fn refuse_another_s(path: &Path) -> Result<()> {
    let ours = match fs::read(path) {
        Ok(bytes) => bytes.windows(OURS.len()).any(|bytes| bytes == OURS.as_bytes()),
        Err(error) => error.kind() == io::ErrorKind::NotFound && !path.is_symlink(),
    };
    let path = path.display();
    anyhow::ensure!(
        ours,
        "{path} is there and no card of offramp's: move it away, or replace it with --overwrite"
    );
    Ok(())
}

/// The folder's name. `model/` in a run folder has the run's name.
fn name(folder: &Path) -> String {
    let own = folder.file_name().filter(|name| *name != MODEL);
    let name = own.or_else(|| folder.parent().and_then(Path::file_name));
    name.map_or("model".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The folder of the journal: the argument's, else the model's folder, else the folder around it.
fn run_folder(arguments: &Arguments, folder: &Path) -> Option<PathBuf> {
    let near = [Some(folder), folder.parent()].into_iter().flatten().map(Path::to_owned);
    arguments.run.clone().or_else(|| near.into_iter().find(|place| place.join(JOURNAL).exists()))
}

fn read_journal(run: Option<&Path>) -> Result<Option<TrainingReport>> {
    Ok(run.map(|run| TrainingReport::read(&run.join(JOURNAL))).transpose()?.flatten())
}

fn measure(arguments: &Arguments, folder: &Path, config: &Config) -> Result<Measured> {
    let score = |data: &[PathBuf], exits: Vec<usize>| -> Result<Option<Scores>> {
        if data.is_empty() {
            return Ok(None);
        }
        let pipeline = ModelSource::Folder(folder.to_owned()).open(&Formats::default())?;
        let stream = stories::open(data, &arguments.reading, pipeline.tokenizer(), u64::MAX)?;
        let options = PerplexityOptions { exits, ..Default::default() };
        let exits = eval::score(&pipeline, &stream, &options)?;
        let names = data.iter().map(|path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
        Ok(Some(Scores { data: names.collect::<Vec<_>>().join(", "), exits }))
    };
    let validation = score(&arguments.data, Vec::new())?;
    let full = vec![config.num_hidden_layers];
    let untouched = score(&arguments.untouched, full)?;
    let speed = if arguments.runs == 0 { None } else { Some(time(arguments.runs, folder, config)?) };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Measured { version, validation, untouched, speed })
}

/// Times every exit. A short context gets a shorter prompt and fewer new tokens.
fn time(runs: usize, folder: &Path, config: &Config) -> Result<SpeedFigures> {
    let half = config.prompt_context() / 2;
    let usual = SpeedOptions::default();
    let options = SpeedOptions {
        exits: (1..=config.num_hidden_layers).collect(),
        prompt_tokens: usual.prompt_tokens.min(half).max(1),
        new_tokens: usual.new_tokens.min(half).max(1),
        verify: 0,
        runs,
    };
    let load = || Ok(Llama::load(folder, &Formats::default())?);
    let report = offramp_eval::speed(load, &options, &mut counted("timed", "samples"))?;
    Ok(SpeedFigures::new(&report))
}

/// Writes the card and the files that it mentions.
fn write(folder: &Path, card: &Card<'_>) -> Result<()> {
    let write = |name: &str, text: &str| {
        checkpoint::write_atomically(&folder.join(name), |file| file.write_all(text.as_bytes()))
    };
    let json = serde_json::to_string_pretty(&card.measured).context("the measurements")? + "\n";
    write(MEASURED, &json)?;
    if card.measured.exits().len() > 1 {
        write(EXITS_PLOT, &plot::exits::svg(&card.measured, card.name)?)?;
    }
    if card.is_float() {
        let (class, code) = card.modeling();
        checkpoint::add_remote_code(folder, MODULE, &class, &code)?;
        // Folders of earlier builds lack this file, and transformers then guesses the tokenizer's class.
        if !folder.join(TOKENIZER_CONFIG).exists() && folder.join(TOKENIZER).exists() {
            let context = card.config.max_position_embeddings;
            write(TOKENIZER_CONFIG, &Tokenizer::from_folder(folder)?.transformers_json(context))?;
        }
    }
    write(CARD, &card.markdown())?;
    Ok(())
}
