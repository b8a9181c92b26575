//! `offramp demo`: measures every exit of the model that the program contains.

use crate::bench::describe;
use crate::eval;
use crate::generate::{self, Printing};
use crate::number::{grouped, rate};
use crate::output::{self, TextTable};
use crate::progress::counted;
use crate::source::carried;
use anyhow::{Context, Result};
use offramp_engine::{SamplingOptions, Speculation};
use offramp_eval::card::Measured;
use offramp_eval::{ExitScore, ExitSpeed, PerplexityOptions, SpeedOptions, SpeedReport, speed};
use offramp_model::{Config, Formats};
use offramp_models::{TINYSTORIES_24, stories};
use offramp_pipeline::{ModelSource, Pipeline, PromptOptions, TextRequest};
use serde::Serialize;

/// Tokens of the prompt, and new tokens, when speed is measured. So few give a first impression, not a
/// benchmark.
const TOKENS: usize = 64;

/// Measure the exits of the model that comes with offramp, and continue one opening from each
///
/// Perplexity and agreement are measured on the stories of offramp's repository, which the model has never
/// seen. The numbers that `offramp card` measured on TinyStories stand beside them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  offramp demo\n  offramp demo --prompt \"The dragon was hungry\"")]
pub(crate) struct Arguments {
    /// The opening
    #[arg(long, value_name = "TEXT", default_value = "Once upon a time, there was a little fox who")]
    prompt: String,
    /// Tokens of each continuation
    #[arg(long, value_name = "N", default_value_t = 90)]
    max_new_tokens: usize,
}

#[derive(Serialize)]
struct Answer {
    model: &'static str,
    prompt: String,
    exits: Vec<ExitScore>,
    speed: SpeedReport,
    recorded: Measured,
    continuations: Vec<Continuation>,
}

#[derive(Serialize)]
struct Continuation {
    exit_layer: usize,
    text: String,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let source = carried();
    let pipeline = source.open(&Formats::default())?;
    let config = pipeline.model().config();
    let exits = Config::quarters(config.num_hidden_layers);
    let prompt = pipeline.encode(&arguments.prompt, PromptOptions::default())?;
    let recorded: Measured =
        serde_json::from_str(TINYSTORIES_24.card).context("the card of the bundled model")?;
    let scores = score(&pipeline, &exits)?;
    let speed = time(&source, &exits)?;
    if !json {
        output::text(&(introduction(config) + &table(&scores, &speed, &recorded)))?;
    }
    let mut continuations = Vec::new();
    for exit_layer in exits {
        if !json {
            output::text(&format!("\n── exit {exit_layer} ──\n"))?;
        }
        let sampling = SamplingOptions { temperature: 0.0, ..Default::default() };
        let max_new_tokens = arguments.max_new_tokens;
        let request = TextRequest {
            prompt: &prompt,
            max_new_tokens,
            exit_layer,
            sampling,
            confidence: None,
            stop: &[],
            logprobs: None,
        };
        let printing = if json { Printing::Silent } else { Printing::Plain };
        let off = Speculation::off();
        let (found, _) = generate::generate(&pipeline, &request, &arguments.prompt, off, printing)?;
        continuations.push(Continuation { exit_layer, text: found.text });
    }
    match json {
        true => output::json(&Answer {
            model: TINYSTORIES_24.name,
            prompt: arguments.prompt.clone(),
            exits: scores,
            speed,
            recorded,
            continuations,
        })?,
        false => output::text("\nMore: offramp generate --exit-layer 12, offramp --help\n")?,
    }
    Ok(())
}

fn score(pipeline: &Pipeline, exits: &[usize]) -> Result<Vec<ExitScore>> {
    let stream = crate::stories::carried(pipeline.tokenizer(), u64::MAX)?;
    let options = PerplexityOptions { exits: exits.to_vec(), ..Default::default() };
    eval::score(pipeline, &stream, &options)
}

fn time(source: &ModelSource, exits: &[usize]) -> Result<SpeedReport> {
    let options =
        SpeedOptions { exits: exits.to_vec(), prompt_tokens: TOKENS, new_tokens: TOKENS, runs: 3, verify: 0 };
    let load = || Ok(source.load(&Formats::default())?);
    Ok(speed(load, &options, &mut counted("timed", "samples"))?)
}

fn introduction(config: &Config) -> String {
    format!(
        "{}: a Llama of {} layers and {} parameters that can be left early\n\n",
        TINYSTORIES_24.name,
        config.num_hidden_layers,
        grouped(config.parameter_count())
    )
}

/// On the left the numbers measured now, on the right those that `offramp card` recorded.
fn table(scores: &[ExitScore], speed: &SpeedReport, recorded: &Measured) -> String {
    let mut table = TextTable::new([
        "exit",
        "perplexity",
        "bits/byte",
        "agreement",
        "decode tokens/s",
        "speed-up",
        "│ TinyStories: perplexity",
        "bits/byte",
    ]);
    for (score, timed) in scores.iter().zip(&speed.exits) {
        table.row(row(score, timed, recorded));
    }
    let (tokens, bytes) = scores.first().map_or((0, 0), |score| (score.tokens, score.bytes));
    table.render()
        + &format!(
            "measured now on {} small stories written for offramp's repository ({} tokens, {} bytes), \
             threads {}; on the right what `offramp card` measured on TinyStories' {}\n",
            stories().count(),
            grouped(tokens),
            grouped(bytes),
            speed.threads,
            recorded.validation.as_ref().map_or("validation stories", |scores| &scores.data),
        )
        + &describe::busy(speed)
}

fn row(score: &ExitScore, timed: &ExitSpeed, recorded: &Measured) -> [String; 8] {
    let scored = recorded.at(score.exit_layer).0;
    let known =
        |value: Option<f64>, digits: usize| value.map_or("–".to_owned(), |v| format!("{v:.digits$}"));
    [
        score.exit_layer.to_string(),
        format!("{:.2}", score.perplexity),
        format!("{:.3}", score.bits_per_byte),
        format!("{:.0} %", 100.0 * score.agreement),
        rate(timed.decode.median),
        format!("{:.1}×", timed.speed_up),
        format!("│ {}", known(scored.map(|score| score.perplexity), 2)),
        known(scored.map(|score| score.bits_per_byte), 3),
    ]
}
