//! `offramp train`: trains the model of a recipe, then measures every exit and generates a story.

use crate::generate::{self, Printing};
use crate::live::Live;
use crate::number::{bytes, duration, fixed, grouped, rate};
use crate::output::note;
use crate::progress::ProgressBar;
use crate::signals::{self, EndsGently};
use crate::{download, eval, output, plan, prepare, profile, several};
use anyhow::{Context, Result};
use offramp_engine::Speculation;
use offramp_eval::{ExitScore, GradNorm, PerplexityOptions, Spread, TrainingReport, peak_memory};
use offramp_model::{Formats, quoted, run_folder};
use offramp_pipeline::{ModelSource, Pipeline, PromptOptions, TextRequest, UserSampling};
use offramp_ranks::Ranks;
use offramp_text::{PrepareSummary, TokenStream};
use offramp_train::profile::Profile;
use offramp_train::{Job, Recipe, RunCorpus, Summary};
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The prompt of the story after training.
const OPENING: &str = "Once upon a time";

/// Train the model that a recipe describes
///
/// The run folder gets the recipe, journal.jsonl (a line per step), the newest checkpoints, and at the end
/// model/, a Hugging Face folder. Ctrl-C and SIGTERM save a checkpoint and stop. --resume continues from the
/// newest checkpoint, also with other keys in the sections `validation` and `checkpoint`, or for more steps.
/// Started by `mpirun`, the processes share each step, and the run is the same.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp train recipes/first-light.toml\n  offramp train recipes/first-light.toml --resume\n  offramp train recipes/first-light.toml --plot\n  offramp train recipes/first-minute.toml --out runs/timed --profile\n  mpirun -n 4 offramp train recipes/llama3-earlyexit.toml\n  offramp train recipes/llama3-earlyexit.toml --plan --tokens-per-second 300"
)]
pub(crate) struct Arguments {
    /// The recipe, a TOML file
    recipe: PathBuf,
    /// The run folder [default: runs/ and the recipe's name]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Continue the run in the run folder
    #[arg(long)]
    resume: bool,
    /// Make model/ the checkpoint with the lowest validation loss instead of the last; with --resume also for
    /// a finished run
    #[arg(long)]
    best: bool,
    /// Only draw curves.svg from the journal in the run folder, also while the run goes on
    #[arg(long, conflicts_with_all = ["resume", "best"])]
    plot: bool,
    /// Print the time of every op: seconds and GFLOP/s
    #[arg(long, conflicts_with = "plot")]
    profile: bool,
    /// Of several processes: seconds after which one that hears nothing from the others ends the run; 0 waits
    /// for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 1800)]
    rank_timeout: u64,
    /// Of several processes: megabytes of gradients that go out together while the backward goes on
    #[arg(long, value_name = "MB", default_value_t = 25.0, value_parser = bucket)]
    bucket_cap_mb: f64,
    /// Train nothing: print what each of several processes needs and sends, and how many pay
    #[arg(long, conflicts_with_all = ["resume", "best", "plot", "profile"])]
    plan: bool,
    /// With --plan: gigabytes in a second that a process can send, and receive at the same time
    #[arg(long, value_name = "GB/S", default_value_t = 1.25, requires = "plan")]
    bandwidth: f64,
    /// With --plan: tokens in a second of one process [default: those of the journal in the run folder]
    #[arg(long, value_name = "N", requires = "plan")]
    tokens_per_second: Option<f64>,
}

/// Megabytes of a bucket.
fn bucket(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(megabytes) if megabytes > 0.0 => Ok(megabytes),
        _ => Err("a number of megabytes above 0, for example 25".to_owned()),
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "output::path")]
    folder: &'a Path,
    #[serde(serialize_with = "output::path")]
    model: &'a Path,
    step: u64,
    stopped: bool,
    seconds: f64,
    best: Option<BestCheckpoint>,
    training: Option<TrainingReport>,
    peak_memory: Option<u64>,
    exits: Vec<ExitScore>,
    story: Option<String>,
    profile: &'a Profile,
}

/// The checkpoint with the lowest validation loss.
#[derive(Serialize)]
struct BestCheckpoint {
    step: u64,
    loss: f64,
    #[serde(serialize_with = "output::path")]
    folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<ExitCode> {
    let folder = match &arguments.out {
        Some(folder) => folder.clone(),
        None => Path::new("runs").join(arguments.recipe.file_stem().unwrap_or_default()),
    };
    if arguments.plot {
        return replot(&folder, json).map(|()| ExitCode::SUCCESS);
    }
    if arguments.plan {
        let Arguments { recipe, bandwidth, tokens_per_second, .. } = arguments;
        return plan::run(recipe, &folder, *bandwidth, *tokens_per_second, json).map(|()| ExitCode::SUCCESS);
    }
    let mut ranks = Ranks::of_launcher()?.with_bucket((arguments.bucket_cap_mb * (1 << 20) as f64) as usize);
    let limit = (arguments.rank_timeout > 0).then(|| Duration::from_secs(arguments.rank_timeout));
    // Without a limit: a corpus may take hours, and then the others wait for the last.
    let (recipe, corpus) = several::together(&mut ranks, None, |ranks| begin(arguments, &folder, ranks))?;
    let place = Place { recipe: &recipe, corpus: &corpus, folder: &folder };
    let summary = several::together(&mut ranks, limit, |ranks| train(arguments, &place, ranks))?;
    let is_first = ranks.is_first();
    drop(ranks); // the others need not wait for what follows
    let told_to_end = signals::stopped();
    if !is_first {
        return Ok(told_to_end.map_or(ExitCode::SUCCESS, ExitCode::from));
    }
    if summary.stopped {
        let command = resume_command(&arguments.recipe, arguments.out.as_deref());
        note(&format!("stopped after step {}; go on with: {command}", summary.step));
    } else {
        let time = duration(Duration::from_secs_f64(summary.seconds));
        note(&format!("{} steps in {time}: {}", grouped(summary.step), summary.model.display()));
        if let Some(line) = which_model(arguments, &folder, &summary) {
            note(&line);
        }
        for average in &summary.averages {
            note(&format!("an average of the weights over the steps: {}", average.display()));
        }
    }
    let peak_memory = peak_memory();
    let report = offramp_eval::plot::write(&folder)?;
    if let Some(report) = &report {
        let memory = peak_memory.map_or(String::new(), |peak| format!("; peak memory {}", bytes(peak)));
        note(&format!("{}\n{}{memory}", stability(report), speed(report)));
    }
    if arguments.profile {
        note(profile::table(&summary.profile).trim_end());
    }
    // The finished model is saved too. The rest is skipped after a signal.
    let told_to_end = told_to_end.or_else(signals::stopped);
    finish(&place, &summary, report, peak_memory, json)?;
    Ok(told_to_end.map_or(ExitCode::SUCCESS, ExitCode::from))
}

/// Reads the recipe and finds or prepares the corpus. All ranks do that; the first shows it.
fn begin(arguments: &Arguments, folder: &Path, ranks: &mut Ranks) -> Result<(Recipe, PathBuf)> {
    let recipe = match arguments.resume {
        true => Recipe::read_for_run(&arguments.recipe, folder)?,
        false => {
            let name = arguments.recipe.display().to_string();
            download::shown(&name, |observer| Recipe::read_observed(&arguments.recipe, observer))?
        }
    };
    if ranks.is_first() && !arguments.resume {
        // Checked now: preparing a corpus would write into the folder of another run.
        offramp_train::check_new(folder)?;
    }
    let corpus = corpus(&recipe, folder, arguments.resume, ranks)?;
    if ranks.is_first() && ranks.size() > 1 {
        note(&format!("{} processes, {}", ranks.size(), ranks.name()));
    }
    Ok((recipe, corpus))
}

/// Trains on this rank. The first owns the run folder and shows what happens.
fn train(arguments: &Arguments, place: &Place<'_>, ranks: &mut Ranks) -> Result<Summary> {
    let mut live = Live::new(place.folder);
    let (screen, is_first) = (live.screen(), ranks.is_first());
    let saves_first = EndsGently::begin(move |signal| {
        if is_first {
            screen.say(saving(signal));
        }
    });
    let (resume, best, stop) = (arguments.resume, arguments.best, saves_first.flag());
    let (corpus, folder) = (place.corpus.to_owned(), place.folder.to_owned());
    let job = Job { recipe: place.recipe, corpus, folder, resume, best, stop };
    let summary = offramp_train::run_on(&job, ranks, &mut |event| live.show(event))?;
    drop(live);
    drop(saves_first); // everything is saved
    Ok(summary)
}

/// Draws the curves of an existing run.
fn replot(folder: &Path, json: bool) -> Result<()> {
    let report = offramp_eval::plot::write(folder)?
        .with_context(|| format!("the journal in {} has no step yet: train first", folder.display()))?;
    note(&folder.join(run_folder::CURVES).display().to_string());
    match json {
        true => output::json(&report)?,
        false => output::text(&(stability(&report) + "\n"))?,
    }
    Ok(())
}

/// The numbers of the model card's "training stability".
fn stability(report: &TrainingReport) -> String {
    let GradNorm { median, percentile_99, max } = report.grad_norm;
    let [median, percentile_99, max, after] =
        [median, percentile_99, max, report.grad_norm_after_warmup.percentile_99].map(|norm| fixed(norm, 2));
    let four = report.grad_norm_int4.map(|norm| format!(", with 4 bits {}", fixed(norm.percentile_99, 2)));
    let four = four.unwrap_or_default();
    let counted = |count: u64, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    format!(
        "gradient norm: median {median}, 99th percentile {percentile_99} (after the warm-up {after}{four}), most \
         {max}; {}, {}",
        counted(report.loss_spikes, "loss spike"),
        counted(report.skipped, "skipped step"),
    )
}

fn speed(report: &TrainingReport) -> String {
    let Spread { median, min, max } = report.tokens_per_second;
    let [median, min, max] = [median, min, max].map(rate);
    format!("smoothed loss {}; tokens/s: median {median}, {min} to {max}", fixed(report.smoothed_loss, 3))
}

/// Says which step `model/` is of and which step is the best; `None` if no best step is known.
fn which_model(arguments: &Arguments, folder: &Path, summary: &Summary) -> Option<String> {
    let best = summary.best.as_ref()?;
    let (step, loss, name) = (grouped(best.step), best.loss, summary.model.file_name()?.display());
    let loss = format!("validation loss, {loss:.3}");
    Some(match (best.step == summary.step, arguments.best) {
        (true, _) => format!("{name}/ is of the last step, which has the lowest {loss}"),
        (false, true) => format!("{name}/ is of step {step}, which has the lowest {loss}"),
        (false, false) => format!(
            "{name}/ is of the last step; the lowest {loss}, is that of step {step}, {}: --resume --best makes it {name}/",
            run_folder::step_folder(folder, best.step).display()
        ),
    })
}

/// The folder of the corpus, which is prepared if the recipe names the stories themselves.
fn corpus(recipe: &Recipe, folder: &Path, resume: bool, ranks: &mut Ranks) -> Result<PathBuf> {
    let mut progress = ProgressBar::new(1);
    let show = &mut |now| prepare::show(&mut progress, now);
    let found = offramp_train::corpus_on(recipe, folder, resume, ranks, show)?;
    let RunCorpus { folder, moved_from, prepared } = found;
    drop(progress);
    prepared.iter().for_each(prepare::remark);
    if let Some(named) = moved_from.filter(|_| ranks.is_first()) {
        note(&format!("the corpus is not at {}: reading {}", named.display(), folder.display()));
    }
    Ok(folder)
}

fn resume_command(recipe: &Path, out: Option<&Path>) -> String {
    let word = |path: &Path| quoted(&path.display().to_string());
    let out = out.map_or(String::new(), |out| format!(" --out {}", word(out)));
    format!("offramp train {}{out} --resume", word(recipe))
}

/// Generates a story with the new model.
fn generate_story(pipeline: &Pipeline, printing: Printing) -> Result<String> {
    let prompt = pipeline.encode(OPENING, PromptOptions::default())?;
    let request = TextRequest {
        prompt: &prompt,
        max_new_tokens: 160,
        exit_layer: pipeline.model().config().num_hidden_layers,
        confidence: None,
        sampling: pipeline.sampling(&UserSampling::default()).options,
        stop: &[],
        logprobs: None,
    };
    let (found, _) = generate::generate(pipeline, &request, OPENING, Speculation::off(), printing)?;
    Ok(format!("{OPENING}{}", found.text))
}

/// A run, and where it lies.
struct Place<'a> {
    recipe: &'a Recipe,
    corpus: &'a Path,
    folder: &'a Path,
}

/// Prints a finished model's exits and a story.
fn finish(
    place: &Place<'_>,
    summary: &Summary,
    training: Option<TrainingReport>,
    peak_memory: Option<u64>,
    json: bool,
) -> Result<()> {
    let (mut exits, mut story) = (Vec::new(), None);
    if signals::stopped().is_none() {
        let pipeline = ModelSource::Folder(summary.model.clone()).open(&Formats::default())?;
        let has_valid = PrepareSummary::read(place.corpus)?.valid.is_some();
        let stream = has_valid.then(|| TokenStream::open(place.corpus, "valid")).transpose()?;
        if let Some(stream) = stream.filter(|stream| stream.len() >= 2) {
            let wanted = place.recipe.validation_exits();
            let options = PerplexityOptions { exits: wanted, ..Default::default() };
            exits = eval::score(&pipeline, &stream, &options)?;
        }
        if !json && !exits.is_empty() {
            output::text(&(eval::table(&exits) + "\n"))?;
        }
        story = Some(generate_story(&pipeline, if json { Printing::Silent } else { Printing::Plain })?);
    }
    if json {
        let &Summary { step, stopped, seconds, ref model, .. } = summary;
        output::json(&Answer {
            folder: place.folder,
            model,
            step,
            stopped,
            seconds,
            best: summary.best.as_ref().map(|best| BestCheckpoint {
                step: best.step,
                loss: best.loss,
                folder: run_folder::step_folder(place.folder, best.step),
            }),
            training,
            peak_memory,
            exits,
            story,
            profile: &summary.profile,
        })?;
    }
    Ok(())
}

/// Why a run is saving.
fn saving(signal: i32) -> &'static str {
    match signal {
        SIGINT => "saving; Ctrl-C again to leave without saving",
        SIGTERM => "told to end (SIGTERM): saving",
        _ => "the terminal has hung up (SIGHUP): saving",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_goes_on_takes_any_path() {
        let command = |recipe: &str, out: Option<&str>| resume_command(Path::new(recipe), out.map(Path::new));
        assert_eq!(command("a.toml", None), "offramp train a.toml --resume");
        let quoted = r"offramp train 'my recipes/a.toml' --out 'it'\''s' --resume";
        assert_eq!(command("my recipes/a.toml", Some("it's")), quoted);
    }
}
