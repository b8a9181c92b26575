//! `offramp generate`: generates a text, at any exit, plainly or with speculation.

mod confidence;
mod trace;

use crate::number::rate;
use crate::{generation, output, prompt, sampling, source};
use anyhow::Result;
use offramp_engine::{Speculation, Statistics, Workspace};
use offramp_eval::Calibration;
use offramp_pipeline::{Chat, ChatTemplate, Finish, GeneratedText, Pipeline, Sampling, TextRequest};
use serde::Serialize;
use std::ops::ControlFlow;

/// Continue a prompt, at full depth or at an exit layer
///
/// The prompt is encoded as transformers does: names of special tokens become these tokens, and the
/// tokenizer's own beginning of text is added. With --speculate the first layers draft and the rest verify:
/// the same text, token for token, in less time.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp generate --prompt \"Once upon a time\" --exit-layer 12\n  offramp generate runs/first-light --temperature 0 --stop \"The end\"\n  offramp generate --prompt-file opening.txt\n  offramp generate --speculate auto --trace\n  offramp generate --agreement 0.95\n  offramp generate path/to/model --chat --prompt \"Who are you?\""
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    #[command(flatten)]
    prompt: prompt::Arguments,
    #[command(flatten)]
    chat: Chatting,
    #[command(flatten)]
    generation: generation::Arguments,
    #[command(flatten)]
    confidence: confidence::Arguments,
    /// Show which tokens were drafted and accepted, and which were corrected
    #[arg(long)]
    trace: bool,
    /// At most N new tokens
    #[arg(long, value_name = "N", default_value_t = 256)]
    max_new_tokens: usize,
    /// With --json, the log-probability of each token, and of the K most likely ones in its place
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u8).range(0..=20))]
    logprobs: Option<u8>,
}

/// The prompt as a message of a chat.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "chatting_arguments")]
struct Chatting {
    /// Answer the prompt as a message, through the model's chat template; only the answer is printed
    #[arg(long, conflicts_with = "plain_text")]
    chat: bool,
    /// The system message, before the prompt
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    system: Option<String>,
}

#[derive(Serialize)]
struct Answer<'a> {
    prompt: &'a str,
    text: String,
    tokens: &'a [u32],
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<TokenLogprobs>>,
    exit_layer: usize,
    speculation: Option<Speculated>,
    calibration: Option<Calibration>,
    mean_depth: Option<f64>,
    sampling: sampling::SamplingAnswer,
    stop: &'static str,
    stop_string: Option<String>,
    prompt_tokens: usize,
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: Option<f64>,
    time_to_first_token: f64,
}

/// How likely a token is.
#[derive(Serialize)]
struct TokenLogprobs {
    token_id: u32,
    logprob: Option<f64>,
    top: Vec<(u32, f64)>,
}

/// The counts of drafted tokens.
#[derive(Serialize)]
struct Speculated {
    rounds: usize,
    drafted: usize,
    accepted: usize,
    acceptance_rate: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let prompt = arguments.prompt.text()?;
    let source = arguments.source.source()?;
    // Checked before the weights are loaded: most folders without a template are not chat models.
    let template = arguments.chat.chat.then(|| source.chat_template()).transpose()?;
    let mut pipeline = source.open(&arguments.generation.formats())?;
    let chat = template.map(|template| arguments.chat.ask(template, &prompt, &mut pipeline));
    let layers = pipeline.model().config().num_hidden_layers;
    let ids = match &chat {
        Some(chat) => chat.encode(&pipeline)?,
        None => pipeline.encode(&prompt, arguments.prompt.options())?,
    };
    let sampling = arguments.generation.sampling(&pipeline);
    let exit_layer = arguments.generation.exit_layer(&pipeline);
    let mut request = arguments.generation.request(&pipeline, &ids, arguments.max_new_tokens);
    check(&pipeline, &request)?;
    let (confidence, calibration) =
        arguments.confidence.policy(&pipeline, arguments.generation.reading())?.unzip();
    request.confidence = confidence;
    request.logprobs = arguments.logprobs.map(usize::from);
    let calibration = calibration.flatten();
    let speculation = arguments.generation.speculation(&pipeline)?;
    let printing = match (json, arguments.trace) {
        (true, _) => Printing::Silent,
        (false, false) => Printing::Plain,
        (false, true) => Printing::Traced,
    };
    let shown = if chat.is_some() { "" } else { &prompt };
    let (found, speculation) = generate(&pipeline, &request, shown, speculation, printing)?;
    if json {
        return print(arguments, &prompt, exit_layer, &sampling, calibration, found);
    }
    if let Some(found) = &calibration {
        output::note(&confidence::describe(found, layers));
    }
    if arguments.trace {
        output::note(&trace::legend(&speculation, exit_layer));
    }
    output::note(&describe(&found, exit_layer, layers, &sampling));
    Ok(())
}

impl Chatting {
    /// Makes a conversation of one message.
    fn ask(&self, template: ChatTemplate, prompt: &str, pipeline: &mut Pipeline) -> Chat {
        let mut chat = Chat::new(template, self.system.clone(), pipeline);
        chat.ask(prompt);
        chat
    }
}

/// Checks that the request is possible, before anything takes time.
fn check(pipeline: &Pipeline, request: &TextRequest<'_>) -> Result<()> {
    let session = pipeline.session(request.prompt.len(), request.max_new_tokens)?;
    pipeline.begin(session, request, Speculation::off())?;
    Ok(())
}

/// Which parts of a text are printed while it is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Printing {
    Silent,
    Plain,
    Traced,
}

/// Generates a text after its prompt, which is printed as `shown`. Also returns what the speculation learnt.
pub(crate) fn generate(
    pipeline: &Pipeline,
    request: &TextRequest<'_>,
    shown: &str,
    speculation: Speculation,
    printing: Printing,
) -> Result<(GeneratedText, Speculation)> {
    let session = pipeline.session(request.prompt.len(), request.max_new_tokens)?;
    let mut generation = pipeline.begin(session, request, speculation)?;
    if printing != Printing::Silent {
        output::text(shown)?;
    }
    let mut failed = None;
    generation.run(&mut Workspace::new(), &mut |piece| {
        let printed = match printing {
            Printing::Silent => Ok(()),
            Printing::Plain => output::text(&piece.text),
            Printing::Traced => output::text(&trace::paint(&piece.text, piece.origin)),
        };
        failed = printed.err();
        if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    if printing != Printing::Silent {
        output::text("\n")?;
    }
    let (found, _, speculation) = generation.into_parts();
    Ok((found, speculation))
}

fn print(
    arguments: &Arguments,
    prompt: &str,
    exit_layer: usize,
    sampling: &Sampling,
    calibration: Option<Calibration>,
    found: GeneratedText,
) -> Result<()> {
    let GeneratedText { text, tokens, finish, logprobs, statistics } = found;
    let logprobs = tokens.iter().zip(logprobs).map(|(&token_id, found)| TokenLogprobs {
        token_id,
        logprob: found.logprob,
        top: found.top,
    });
    let (stop, stop_string) = generation::finish(finish);
    output::json(&Answer {
        prompt,
        text,
        tokens: &tokens,
        logprobs: arguments.logprobs.map(|_| logprobs.collect()),
        exit_layer,
        speculation: arguments.generation.speculates().then_some(Speculated {
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

fn describe(found: &GeneratedText, exit_layer: usize, layers: usize, sampling: &Sampling) -> String {
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
