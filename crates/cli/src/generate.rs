//! `offramp generate`: a text, from any exit, or drafted by one.

mod confidence;
mod trace;

use crate::number::rate;
use crate::speculate::{self, Speculate};
use crate::{formats, output, prompt, sampling, source};
use anyhow::Result;
use offramp_engine::{Speculation, Statistics};
use offramp_eval::Calibration;
use offramp_pipeline::{Finish, Pipeline, Request, Sampling, Told};
use serde::Serialize;
use std::ops::ControlFlow;

/// Continue a prompt, at full depth or leaving at an exit layer
///
/// The prompt is encoded as transformers does: special tokens that it names are those tokens, and the tokenizer's own
/// beginning of text is added. With --speculate the first layers draft and the rest verifies: the same text, token for
/// token, sooner.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp generate --prompt \"Once upon a time\" --exit-layer 12\n  offramp generate runs/first-light --temperature 0 --stop \"The end\"\n  offramp generate --prompt-file opening.txt\n  offramp generate --speculate auto --trace\n  offramp generate --agreement 0.95"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    #[command(flatten)]
    prompt: prompt::Arguments,
    /// Leave after so many layers [default: all]
    #[arg(long, value_name = "E")]
    exit_layer: Option<usize>,
    /// Draft with the first layers: auto, off, or an exit layer and a draft length, as 6:4
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "auto", default_value = "off")]
    speculate: Speculate,
    #[command(flatten)]
    head: speculate::Head,
    #[command(flatten)]
    confidence: confidence::Arguments,
    /// Show which tokens were drafted and accepted, and which were corrected
    #[arg(long)]
    trace: bool,
    #[command(flatten)]
    formats: formats::Arguments,
    /// At most so many new tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// Stop before this text, which is not printed; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    #[command(flatten)]
    sampling: sampling::Arguments,
}

#[derive(Serialize)]
struct Answer<'a> {
    prompt: &'a str,
    text: String,
    tokens: &'a [u32],
    exit_layer: usize,
    speculation: Option<Speculated>,
    calibration: Option<Calibration>,
    mean_depth: Option<f64>,
    sampling: sampling::Said,
    stop: &'static str,
    stop_string: Option<String>,
    prompt_tokens: usize,
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: Option<f64>,
    time_to_first_token: f64,
}

/// What came of drafts.
#[derive(Serialize)]
struct Speculated {
    rounds: usize,
    drafted: usize,
    accepted: usize,
    acceptance_rate: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let prompt = arguments.prompt.text()?;
    let pipeline = arguments.source.source()?.open(&arguments.formats.formats())?;
    let layers = pipeline.model().config().num_hidden_layers;
    let ids = pipeline.encode(&prompt, arguments.prompt.options())?;
    let sampling = pipeline.sampling(&arguments.sampling.asked());
    let mut request = Request {
        prompt: &ids,
        max_new_tokens: arguments.max_new_tokens,
        exit_layer: arguments.exit_layer.unwrap_or(layers),
        confidence: None,
        sampling: sampling.options,
        stop: &arguments.stop,
    };
    check(&pipeline, &request)?;
    let (confidence, calibration) = arguments.confidence.policy(&pipeline)?.unzip();
    request.confidence = confidence;
    let calibration = calibration.flatten();
    let mut speculation = match arguments.speculate {
        Speculate::Off => Speculation::off(),
        how => how.speculation(arguments.head.make(&pipeline)?),
    };
    let voice = match (json, arguments.trace) {
        (true, _) => Voice::Silent,
        (false, false) => Voice::Plain,
        (false, true) => Voice::Traced,
    };
    let told = tell(&pipeline, request, &prompt, &mut speculation, voice)?;
    let exit_layer = arguments.exit_layer.unwrap_or(layers);
    if json {
        return print(arguments, (&prompt, exit_layer), &sampling, calibration, told);
    }
    if let Some(found) = &calibration {
        output::note(&confidence::describe(found, layers));
    }
    if arguments.trace {
        output::note(&trace::legend(&speculation, exit_layer));
    }
    output::note(&describe(&told, exit_layer, layers, &sampling));
    Ok(())
}
/// Whether all this can be told, before anything takes time.
fn check(pipeline: &Pipeline, request: &Request<'_>) -> Result<()> {
    let mut session = pipeline.session(request.prompt.len(), request.max_new_tokens)?;
    pipeline.begin(&mut session, request.clone(), &mut Speculation::off())?;
    Ok(())
}

/// How prompt and text go to stdout as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    Silent,
    Plain,
    Traced,
}

/// Tells a text after its prompt, which `shown` is in words.
pub(crate) fn tell(
    pipeline: &Pipeline,
    request: Request<'_>,
    shown: &str,
    speculation: &mut Speculation,
    voice: Voice,
) -> Result<Told> {
    let mut session = pipeline.session(request.prompt.len(), request.max_new_tokens)?;
    let telling = pipeline.begin(&mut session, request, speculation)?;
    if voice != Voice::Silent {
        output::text(shown)?;
    }
    let mut failed = None;
    let told = telling.run(&mut |piece| {
        let said = match voice {
            Voice::Silent => Ok(()),
            Voice::Plain => output::text(piece.text),
            Voice::Traced => output::text(&trace::paint(piece.text, piece.origin)),
        };
        failed = said.err();
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if voice != Voice::Silent {
        output::text("\n")?;
    }
    Ok(told)
}

fn print(
    arguments: &Arguments,
    (prompt, exit_layer): (&str, usize),
    sampling: &Sampling,
    calibration: Option<Calibration>,
    told: Told,
) -> Result<()> {
    let Told { text, tokens, finish, statistics } = told;
    let (stop, stop_string) = match finish {
        Finish::StopToken => ("stop_token", None),
        Finish::StopString(stop) => ("stop_string", Some(stop)),
        Finish::Length => ("length", None),
        Finish::ContextFull => ("context_full", None),
        Finish::Reader => ("reader_gone", None),
    };
    output::json(&Answer {
        prompt,
        text,
        tokens: &tokens,
        exit_layer,
        speculation: (arguments.speculate != Speculate::Off).then_some(Speculated {
            rounds: statistics.rounds,
            drafted: statistics.drafted,
            accepted: statistics.accepted,
            acceptance_rate: statistics.acceptance_rate(),
        }),
        calibration,
        mean_depth: statistics.mean_depth,
        sampling: sampling.into(),
        stop,
        stop_string,
        prompt_tokens: statistics.prompt_tokens,
        prefill_tokens_per_second: statistics.prefill_tokens_per_second(),
        decode_tokens_per_second: statistics.decode_tokens_per_second(),
        time_to_first_token: statistics.time_to_first_token.as_secs_f64(),
    })?;
    Ok(())
}

fn describe(found: &Told, exit_layer: usize, layers: usize, sampling: &Sampling) -> String {
    let Statistics { new_tokens, time_to_first_token, .. } = found.statistics;
    let decode = match found.statistics.decode_tokens_per_second() {
        Some(tokens) => format!(", {} tokens/s", rate(tokens)),
        None => String::new(),
    };
    let first = 1e3 * time_to_first_token.as_secs_f64();
    let drafts = match found.statistics.acceptance_rate() {
        Some(rate) => format!(
            ", {} of {} drafted accepted ({:.0} %) in {} rounds",
            found.statistics.accepted,
            found.statistics.drafted,
            100.0 * rate,
            found.statistics.rounds
        ),
        None => String::new(),
    };
    let depth = match found.statistics.mean_depth {
        Some(depth) => format!("{depth:.1}"),
        None => exit_layer.to_string(),
    };
    let end = match &found.finish {
        Finish::StopToken => "the text ended".to_owned(),
        Finish::StopString(stop) => format!("stopped before {stop:?}"),
        Finish::Length => "as many as asked for".to_owned(),
        Finish::ContextFull => "the context is full".to_owned(),
        Finish::Reader => "the reader has gone".to_owned(),
    };
    let sampling = sampling.describe();
    format!(
        "[{new_tokens} tokens ({end}), {depth} of {layers} layers{drafts}{decode}, first token after {first:.1} ms; \
         {sampling}]"
    )
}
