//! `offramp sweep`: measures speculation at every exit layer and draft length.

mod describe;

use crate::output;
use crate::progress::counted;
use crate::speculate;
use crate::{formats, shape, source, stories};
use anyhow::{Context, Result};
use offramp_engine::{SamplingOptions, Speculate};
use offramp_eval::{
    Agreeing, AgreeingOptions, SweepOptions, SweepReport, Texts, agreeing, openings, swept_exits,
};
use offramp_model::{Config, Llama};
use offramp_pipeline::{DraftFormat, Drafts};
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

/// The seed of made-up weights.
const SEED: u64 = 0;
/// About the length of a story: this many tokens are read for each prompt.
const STORY: u64 = 1000;
/// The default number of new tokens.
const NEW_TOKENS: usize = 128;

/// Measure speculative decoding at every exit layer and draft length, and what `auto` reaches
///
/// All points decode the same openings in turn, with plain decoding before and after; speed-ups are relative
/// to plain decoding. --out draws them as a heat map. With --config, weights are made up so that tokens
/// drafted at the exit --agree-at are accepted as often as --acceptance says. This measures a shape that
/// nobody has trained. Openings are encoded as corpora are: as plain text, without special tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  offramp sweep --out sweep.svg\n  \
                  offramp sweep --config recipes/llama3-earlyexit.toml --format bf16 --agree-at 4 --acceptance 0.8 \
                  --exits 4 --lengths 2,3,4 --new-tokens 64")]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// A recipe (.toml) or a config.json: made-up weights in that shape
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "model_folder", "data", "draft_shortlist"],
          requires = "acceptance", requires = "agree_at")]
    config: Option<PathBuf>,
    /// The chance that a token drafted by made-up weights is accepted if all before it were, such as 0.8
    #[arg(long, value_name = "SHARE", requires = "config")]
    acceptance: Option<f64>,
    /// The exit of made-up weights that agrees; with --draft-format, that of the copies
    #[arg(long, value_name = "E", requires = "config")]
    agree_at: Option<usize>,
    /// Exits that draft, separated by commas [default: a few up to half of the depth]
    #[arg(long, value_name = "E,…", value_delimiter = ',')]
    exits: Vec<usize>,
    /// Draft lengths, separated by commas
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1,2,3,4,6,8")]
    lengths: Vec<usize>,
    #[command(flatten)]
    head: speculate::DraftHeadArguments,
    #[command(flatten)]
    layers: speculate::DraftLayersArguments,
    /// Stories whose openings are continued, as for `offramp eval` [default: those that come with offramp]
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    reading: stories::Reading,
    /// Tokens of each opening
    #[arg(long, value_name = "N", default_value_t = 16)]
    prompt_tokens: usize,
    /// New tokens of each text [default: 128, or as many as fit into the model's context]
    #[arg(long, value_name = "N")]
    new_tokens: Option<usize>,
    /// Rounds, each over the next opening
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
    /// Below 1 sharpens the distribution; 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    temperature: f32,
    /// The heat map to write, as SVG
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    formats: formats::Arguments,
}

#[derive(Serialize)]
struct Answer {
    #[serde(serialize_with = "output::path")]
    model: PathBuf,
    made_up: Option<MadeUp>,
    report: SweepReport,
}

/// Made-up weights, of which one exit agrees.
#[derive(Clone, Copy, Debug, Serialize)]
struct MadeUp {
    exit_layer: usize,
    /// The factor on the output of the layers after the exit.
    scale: f32,
    /// The chance that a token drafted at the exit is accepted if all before it were, over these texts.
    acceptance: f64,
}

/// A model and its prompts.
struct Material {
    path: PathBuf,
    model: Arc<Llama>,
    prompts: Vec<Vec<u32>>,
    token_limit: Option<usize>,
    head: Option<offramp_model::DraftHead>,
    made_up: Option<MadeUp>,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let material = match &arguments.config {
        Some(file) => make_up(file, arguments)?,
        None => load(arguments)?,
    };
    let Material { path, model, prompts, token_limit, head, made_up } = material;
    let depth = model.config().num_hidden_layers;
    anyhow::ensure!(
        depth > 1 || !arguments.exits.is_empty(),
        "a model of one layer has no exit before its last that could draft: there is nothing to sweep"
    );
    let layers = Drafts::new(&model, None, arguments.layers.draft_format).layers(Speculate::Auto)?;
    let [exits, copied_exits] =
        swept_exits(depth, &arguments.exits, !arguments.layers.are_copies(), layers.is_some());
    let options = SweepOptions {
        exits,
        copied_exits,
        lengths: arguments.lengths.clone(),
        new_tokens: new_tokens(arguments, model.config()),
        runs: arguments.runs,
        sampling: SamplingOptions { temperature: arguments.temperature, ..Default::default() },
        token_limit,
        head,
        layers,
    };
    let mut progress = counted("decoded", "texts");
    let report = offramp_eval::sweep(&model, &prompts, &options, &mut progress)?;
    drop(progress);
    if let Some(file) = &arguments.out {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let svg = offramp_eval::plot::heat::svg(&report, &name)?;
        offramp_model::checkpoint::write_atomically(file, |out| out.write_all(svg.as_bytes()))
            .context("the heat map")?;
    }
    match json {
        true => output::json(&Answer { model: path, made_up, report })?,
        false => {
            let head = options.head.as_ref();
            let verdict = describe::verdict(&report, made_up.is_some());
            let notes = describe::notes(&report, head, made_up.as_ref());
            output::text(&(describe::table(&report) + &verdict + &notes))?;
        }
    }
    Ok(())
}

fn load(arguments: &Arguments) -> Result<Material> {
    let source = arguments.source.source()?;
    let pipeline = source.open(&arguments.formats.formats())?;
    let most = STORY.saturating_mul(arguments.runs as u64);
    let stream = stories::open(&arguments.data, &arguments.reading, pipeline.tokenizer(), most)?;
    let end_of_text = pipeline.tokenizer().end_of_text();
    let prompts = openings(&stream, end_of_text, arguments.runs, arguments.prompt_tokens)?;
    let head = arguments.head.make(&pipeline, &arguments.reading)?;
    let token_limit = Some(pipeline.tokenizer().vocab_size());
    let model = pipeline.into_model();
    Ok(Material { path: source.path().to_owned(), model, prompts, token_limit, head, made_up: None })
}

/// As given, or the default number as far as the context allows.
fn new_tokens(arguments: &Arguments, config: &Config) -> usize {
    let capacity = config.context().saturating_sub(arguments.prompt_tokens);
    arguments.new_tokens.unwrap_or(NEW_TOKENS.min(capacity).max(2)) // the sweep refuses what does not fit
}

fn make_up(file: &std::path::Path, arguments: &Arguments) -> Result<Material> {
    let config = shape::read(file)?;
    let new_tokens = arguments.new_tokens.unwrap_or(NEW_TOKENS);
    let needed = arguments.prompt_tokens.saturating_add(new_tokens);
    let config = Config { max_position_embeddings: needed.max(config.max_position_embeddings), ..config };
    let (exit_layer, wanted) =
        arguments.agree_at.zip(arguments.acceptance).context("--agree-at and --acceptance")?;
    let token = |run: usize, index: usize| ((run * 7919 + index * 104_729) % config.vocab_size) as u32;
    let prompt = |run| (0..arguments.prompt_tokens.max(1)).map(|index| token(run + 1, index)).collect();
    let prompts: Vec<Vec<u32>> = (0..arguments.runs).map(prompt).collect();
    let texts = Texts { prompts: &prompts, new_tokens };
    let formats = &arguments.formats.formats();
    let options = AgreeingOptions {
        config: &config,
        seed: SEED,
        formats,
        exit_layer,
        draft_format: arguments.layers.draft_format.and_then(DraftFormat::named),
        acceptance: wanted,
    };
    let make_head = |model: &Llama| arguments.head.make_whole(model);
    let mut progress = counted("made up", "models");
    let Agreeing { model, scale, acceptance } = agreeing(&options, texts, &make_head, &mut progress)?;
    drop(progress);
    let head = make_head(&model)?;
    let made_up = Some(MadeUp { exit_layer, scale, acceptance });
    Ok(Material { path: file.to_owned(), model, prompts, token_limit: None, head, made_up })
}
