//! `offramp generate`: a text, from any exit, or drafted by one.

mod confidence;
mod trace;

use crate::number::rate;
use crate::speculate::{self, Speculate};
use crate::{formats, output, source};
use anyhow::{Context, Result};
use offramp_engine::{
    ConfidenceExit, GenerateOptions, Generation, SamplingOptions, Session, Speculation, Statistics,
    StopReason, generate,
};
use offramp_eval::Calibration;
use offramp_model::Llama;
use offramp_text::Tokenizer;
use serde::Serialize;
use std::ops::ControlFlow;

/// Continue a prompt, at full depth or leaving at an exit layer
///
/// With --speculate the first layers draft and the rest verifies: the same text, token for token, sooner.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp generate --prompt \"Once upon a time\" --exit-layer 12\n  offramp generate runs/first-light --temperature 0\n  offramp generate --speculate auto --trace\n  offramp generate --agreement 0.95"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// What to continue; "" lets the model begin
    #[arg(long, value_name = "TEXT", default_value = "Once upon a time")]
    prompt: String,
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
    /// Below 1 sharpens the distribution, above 1 flattens it; 0 is greedy
    #[arg(long, value_name = "T", default_value_t = 0.6)]
    temperature: f32,
    /// Keep only so many of the most likely tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Keep the most likely tokens whose probabilities sum to this
    #[arg(long, value_name = "P", default_value_t = 0.9)]
    top_p: f32,
    /// Above 1 makes tokens that have occurred less likely
    #[arg(long, value_name = "R", default_value_t = 1.0)]
    repetition_penalty: f32,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
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
    stop: &'static str,
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
    let (model, tokenizer) = arguments.source.source()?.open(&arguments.formats.formats())?;
    let exit_layer = arguments.exit_layer.unwrap_or(model.config().num_hidden_layers);
    let sampling = SamplingOptions {
        temperature: arguments.temperature,
        top_k: arguments.top_k,
        top_p: arguments.top_p,
        repetition_penalty: arguments.repetition_penalty,
        seed: arguments.seed,
    };
    let Arguments { prompt, max_new_tokens, .. } = arguments;
    let layers = model.config().num_hidden_layers;
    let (confidence, calibration) = arguments.confidence.policy(&model, &tokenizer)?.unzip();
    let calibration = calibration.flatten();
    if let (Some(found), false) = (&calibration, json) {
        output::note(&confidence::describe(found, layers));
    }
    let story = Story { prompt, max_new_tokens: *max_new_tokens, exit_layer, sampling, confidence };
    let mut speculation = match arguments.speculate {
        Speculate::Off => Speculation::off(),
        how => how.speculation(arguments.head.make(&model, &tokenizer)?),
    };
    let voice = match (json, arguments.trace) {
        (true, _) => Voice::Silent,
        (false, false) => Voice::Plain,
        (false, true) => Voice::Traced,
    };
    let found = tell(&model, &tokenizer, &story, &mut speculation, voice)?;
    let statistics = &found.statistics;
    if !json {
        if arguments.trace {
            output::note(&trace::legend(&speculation, exit_layer));
        }
        output::note(&describe(&found, exit_layer, layers));
        return Ok(());
    }
    let stop = match found.reason {
        StopReason::StopToken => "stop_token",
        StopReason::Length => "length",
        StopReason::ContextFull => "context_full",
        StopReason::Callback => "reader_gone",
    };
    output::json(&Answer {
        prompt: &arguments.prompt,
        text: tokenizer.decode(&found.tokens)?,
        tokens: &found.tokens,
        exit_layer,
        speculation: (arguments.speculate != Speculate::Off).then_some(Speculated {
            rounds: statistics.rounds,
            drafted: statistics.drafted,
            accepted: statistics.accepted,
            acceptance_rate: statistics.acceptance_rate(),
        }),
        calibration,
        mean_depth: statistics.mean_depth,
        stop,
        prompt_tokens: statistics.prompt_tokens,
        prefill_tokens_per_second: statistics.prefill_tokens_per_second(),
        decode_tokens_per_second: statistics.decode_tokens_per_second(),
        time_to_first_token: statistics.time_to_first_token.as_secs_f64(),
    })?;
    Ok(())
}

/// What is to be told.
pub(crate) struct Story<'a> {
    pub(crate) prompt: &'a str,
    pub(crate) max_new_tokens: usize,
    pub(crate) exit_layer: usize,
    pub(crate) sampling: SamplingOptions,
    pub(crate) confidence: Option<ConfidenceExit>,
}

/// How prompt and text go to stdout as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    Silent,
    Plain,
    Traced,
}

/// Generates.
pub(crate) fn tell(
    model: &Llama,
    tokenizer: &Tokenizer,
    story: &Story<'_>,
    speculation: &mut Speculation,
    voice: Voice,
) -> Result<Generation> {
    let mut prompt = tokenizer.encode(story.prompt)?;
    if prompt.is_empty() {
        // A story begins where another ended.
        prompt
            .push(tokenizer.end_of_text().context("an empty prompt needs a tokenizer with an end of text")?);
    }
    let config = model.config();
    let wanted = prompt.len().saturating_add(story.max_new_tokens);
    let mut session = Session::new(model, wanted.min(config.max_position_embeddings))?;
    session.set_exit_layer(story.exit_layer)?;
    session.set_confidence_exit(story.confidence.clone())?;
    let mut stop_tokens = config.eos_token_ids.clone();
    stop_tokens.extend(tokenizer.end_of_text());
    let options = GenerateOptions {
        max_new_tokens: story.max_new_tokens,
        stop_tokens,
        token_limit: Some(tokenizer.vocab_size()),
        sampling: story.sampling,
    };
    let (mut decoder, mut failed) = (tokenizer.stream(), None);
    if voice != Voice::Silent {
        output::text(story.prompt)?;
    }
    let found = generate(&mut session, &prompt, &options, speculation, &mut |token, origin| {
        let mut say = || -> Result<()> {
            let text = decoder.push(token)?;
            Ok(output::text(&if voice == Voice::Traced { trace::paint(&text, origin) } else { text })?)
        };
        failed = if voice == Voice::Silent { None } else { say().err() };
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    if voice != Voice::Silent {
        output::text(&(decoder.finish() + "\n"))?;
    }
    Ok(found)
}

fn describe(found: &Generation, exit_layer: usize, layers: usize) -> String {
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
    let end = match found.reason {
        StopReason::StopToken => "the text ended",
        StopReason::Length => "as many as asked for",
        StopReason::ContextFull => "the context is full",
        StopReason::Callback => "the reader has gone",
    };
    format!(
        "[{new_tokens} tokens ({end}), {depth} of {layers} layers{drafts}{decode}, first token after {first:.1} ms]"
    )
}
