//! `offramp train`: a recipe becomes a model; then what each exit is worth, and a story.

use crate::generate::{self, Voice};
use crate::live::Live;
use crate::number::{bytes, duration, grouped, rate};
use crate::prepare::{prepare, tokenizer};
use crate::screen::Screen;
use crate::{eval, output, plot, profile};
use anyhow::{Context, Result};
use offramp_engine::Speculation;
use offramp_eval::{ExitScore, GradNorm, PerplexityOptions, Spread, TrainingReport, peak_memory};
use offramp_model::Formats;
use offramp_pipeline::{Asked, Pipeline, PromptOptions, Request, Source};
use offramp_text::{PrepareSummary, TokenStream, TokenizerChoice};
use offramp_train::profile::Profile;
use offramp_train::{Job, Recipe, Summary};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What a finished model goes on from.
const OPENING: &str = "Once upon a time";

/// Train the model that a recipe describes
///
/// The run folder gets the recipe, journal.jsonl (a line per step), the newest checkpoints, and at the end model/,
/// a Hugging Face folder. Ctrl-C saves a checkpoint and stops; --resume goes on from the newest one.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp train recipes/first-light.toml\n  offramp train recipes/first-light.toml --resume\n  offramp train recipes/first-light.toml --plot\n  offramp train recipes/first-minute.toml --out runs/timed --profile"
)]
pub(crate) struct Arguments {
    /// The recipe, a TOML file
    recipe: PathBuf,
    /// The run folder [default: runs/ and the recipe's name]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the run in the run folder
    #[arg(long)]
    resume: bool,
    /// Only draw curves.svg from the journal in the run folder, also of a run under way
    #[arg(long, conflicts_with = "resume")]
    plot: bool,
    /// Print where the steps' time went: seconds and GFLOP/s of every op
    #[arg(long, conflicts_with = "plot")]
    profile: bool,
}

/// Set by Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);
/// The exit code of a run that was stopped, as shells have it: 128 and the number of SIGINT.
const STOPPED: u8 = 130;

#[derive(Serialize)]
struct Answer<'a> {
    folder: &'a Path,
    model: &'a Path,
    step: u64,
    stopped: bool,
    seconds: f64,
    training: Option<TrainingReport>,
    peak_memory: Option<u64>,
    exits: Vec<ExitScore>,
    story: Option<String>,
    profile: &'a Profile,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<ExitCode> {
    let recipe = Recipe::read(&arguments.recipe)?;
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => Path::new("runs").join(arguments.recipe.file_stem().unwrap_or_default()),
    };
    if arguments.plot {
        return replot(&folder, json).map(|()| ExitCode::SUCCESS);
    }
    if !arguments.resume {
        // Before a corpus is prepared into the folder of another run.
        offramp_train::check_new(&folder)?;
    }
    let corpus = corpus(&recipe, &folder, arguments.resume)?;
    let mut live = Live::new(&folder);
    listen(live.screen())?;
    let job = Job { recipe: &recipe, corpus, folder, resume: arguments.resume, stop: &STOP };
    let summary = offramp_train::run(&job, &mut |event| live.show(event))?;
    drop(live);
    if summary.stopped {
        let command = resume_command(arguments);
        eprintln!("stopped after step {}; go on with: {command}", summary.step);
    } else {
        let time = duration(Duration::from_secs_f64(summary.seconds));
        eprintln!("{} steps in {time}: {}", grouped(summary.step), summary.model.display());
    }
    let peak_memory = peak_memory();
    let report = plot::write(&job.folder)?;
    if let Some(report) = &report {
        let memory = peak_memory.map_or(String::new(), |peak| format!("; peak memory {}", bytes(peak)));
        eprintln!("{}\n{}{memory}", stability(report), speed(report));
    }
    if arguments.profile {
        eprint!("{}", profile::table(&summary.profile));
    }
    finish(&job, &summary, (report, peak_memory), json)?;
    Ok(if summary.stopped { ExitCode::from(STOPPED) } else { ExitCode::SUCCESS })
}

/// Draws the curves of a run that is there.
fn replot(folder: &Path, json: bool) -> Result<()> {
    let report = plot::write(folder)?
        .with_context(|| format!("the journal in {} has no step yet: train first", folder.display()))?;
    eprintln!("{}", folder.join("curves.svg").display());
    match json {
        true => output::json(&report)?,
        false => output::text(&(stability(&report) + "\n"))?,
    }
    Ok(())
}

/// The numbers of the model card's "training stability".
fn stability(report: &TrainingReport) -> String {
    let GradNorm { median, percentile_99, max } = report.grad_norm;
    let after = report.grad_norm_after_warmup.percentile_99;
    let four = report.grad_norm_int4.map(|norm| format!(", with 4 bits {:.2}", norm.percentile_99));
    let four = four.unwrap_or_default();
    let counted = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "gradient norm: median {median:.2}, 99th percentile {percentile_99:.2} (after the warm-up {after:.2}{four}), most \
         {max:.2}; {}, {}",
        counted(report.loss_spikes, "loss spike"),
        counted(report.skipped, "skipped step"),
    )
}

fn speed(report: &TrainingReport) -> String {
    let Spread { median, min, max } = report.tokens_per_second;
    let [median, min, max] = [median, min, max].map(rate);
    format!("smoothed loss {:.3}; tokens/s: median {median}, {min} to {max}", report.smoothed_loss)
}

/// The folder of the prepared corpus; prepares it if the recipe names the stories themselves.
fn corpus(recipe: &Recipe, folder: &Path, resume: bool) -> Result<PathBuf> {
    let data = &recipe.data;
    let Some(train) = &data.train else {
        return data.corpus.clone().context("the recipe names no data");
    };
    let corpus = folder.join("corpus");
    if resume && PrepareSummary::read(&corpus).is_ok() {
        return Ok(corpus);
    }
    let choice = match (data.tokenizer.as_deref(), data.vocab_size) {
        (Some("bpe"), Some(vocab_size)) => TokenizerChoice::Train { vocab_size },
        (name, _) => tokenizer(name.unwrap_or("gpt2")),
    };
    prepare(vec![train.clone()], data.valid.clone(), corpus.clone(), choice)?;
    Ok(corpus)
}

/// The first Ctrl-C asks the run to save and stop, a second one ends the process.
fn listen(screen: Screen) -> Result<()> {
    ctrlc::set_handler(move || {
        if STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(STOPPED.into());
        }
        screen.say("saving after this step; Ctrl-C again to leave without saving");
    })
    .context("cannot listen for Ctrl-C")
}

fn resume_command(arguments: &Arguments) -> String {
    let out = arguments.out.as_ref().map_or(String::new(), |out| format!(" --out {}", out.display()));
    format!("offramp train {}{out} --resume", arguments.recipe.display())
}

/// A story of a model that has just been made.
fn tell(pipeline: &Pipeline, voice: Voice) -> Result<String> {
    let prompt = pipeline.encode(OPENING, PromptOptions::default())?;
    let request = Request {
        prompt: &prompt,
        max_new_tokens: 160,
        exit_layer: pipeline.model().config().num_hidden_layers,
        confidence: None,
        sampling: pipeline.sampling(&Asked::default()).options,
        stop: &[],
    };
    let told = generate::tell(pipeline, request, OPENING, &mut Speculation::off(), voice)?;
    Ok(format!("{OPENING}{}", told.text))
}

/// A finished model's exit table and a story.
fn finish(
    job: &Job<'_>,
    summary: &Summary,
    (training, peak_memory): (Option<TrainingReport>, Option<u64>),
    json: bool,
) -> Result<()> {
    let (mut exits, mut story) = (Vec::new(), None);
    if !summary.stopped {
        let pipeline = Source::Folder(summary.model.clone()).open(&Formats::default())?;
        if PrepareSummary::read(&job.corpus)?.valid.is_some() {
            let stream = TokenStream::open(&job.corpus, "valid")?;
            let wanted = job.recipe.validation_exits();
            let options = PerplexityOptions { exits: wanted, ..Default::default() };
            exits = eval::score(&pipeline, &stream, &options)?;
        }
        if !json && !exits.is_empty() {
            output::text(&(eval::table(&exits) + "\n"))?;
        }
        story = Some(tell(&pipeline, if json { Voice::Silent } else { Voice::Plain })?);
    }
    if json {
        let &Summary { step, stopped, seconds, ref model, .. } = summary;
        output::json(&Answer {
            folder: &job.folder,
            model,
            step,
            stopped,
            seconds,
            training,
            peak_memory,
            exits,
            story,
            profile: &summary.profile,
        })?;
    }
    Ok(())
}
