//! `offramp bench`: tokens per second at every exit.

use crate::number::{bytes, rate};
use crate::output::{self, Table};
use crate::progress::Progress;
use anyhow::Result;
use offramp_eval::{SpeedOptions, SpeedReport, Spread, peak_memory, speed};
use offramp_model::{Config, Formats, Llama, checkpoint};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Measure tokens per second at every exit
///
/// Batch 1, greedy: a prompt, then new tokens one by one. The exits take turns in every round; the first round is
/// not counted. Medians, with the least and the most.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  offramp bench runs/first-light --exits 6,12,18,24")]
pub(crate) struct Arguments {
    /// A model folder, or a run folder
    model: PathBuf,
    /// Exit layers, separated by commas [default: each quarter of the depth]
    #[arg(long, value_name = "E,…", value_delimiter = ',')]
    exits: Vec<usize>,
    /// Tokens of the prompt
    #[arg(long, value_name = "N", default_value_t = 128)]
    prompt_tokens: usize,
    /// Tokens decoded after it
    #[arg(long, value_name = "N", default_value_t = 128)]
    new_tokens: usize,
    /// Counted runs of each exit
    #[arg(long, value_name = "N", default_value_t = 5)]
    runs: usize,
}

#[derive(Serialize)]
struct Answer<'a> {
    model: &'a Path,
    #[serde(flatten)]
    report: &'a SpeedReport,
    peak_memory: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let folder = checkpoint::resolve(&arguments.model)?;
    let model = Llama::load(&folder, &Formats::default())?;
    let exits = match arguments.exits.is_empty() {
        true => Config::quarters(model.config().num_hidden_layers),
        false => arguments.exits.clone(),
    };
    let Arguments { prompt_tokens, new_tokens, runs, .. } = *arguments;
    let options = SpeedOptions { exits, prompt_tokens, new_tokens, runs };
    let mut progress = Progress::new(1);
    let mut show = |done: usize, total: usize| {
        progress.set_total(total as u64);
        let remaining = progress.remaining(done as u64, total as u64);
        progress.set(done as u64, || format!("{done} of {total} runs, {remaining} left"));
    };
    let report = speed(&model, &options, &mut show)?;
    drop(progress);
    let peak_memory = peak_memory();
    match json {
        true => output::json(&Answer { model: &folder, report: &report, peak_memory })?,
        false => output::text(&describe(&report, peak_memory))?,
    }
    Ok(())
}

fn describe(report: &SpeedReport, peak_memory: Option<u64>) -> String {
    let spread =
        |spread: &Spread| format!("{} ({}–{})", rate(spread.median), rate(spread.min), rate(spread.max));
    let mut table = Table::new([
        "exit",
        "decode tokens/s",
        "speed-up",
        "prefill tokens/s",
        "first token",
        "bytes/token",
        "of bandwidth",
    ]);
    for exit in &report.exits {
        table.row([
            exit.exit_layer.to_string(),
            spread(&exit.decode),
            format!("{:.2}×", exit.speed_up),
            spread(&exit.prefill),
            format!("{:.1} ms", 1e3 * exit.first_token.median),
            bytes(exit.bytes_per_token),
            format!("{:.0} %", 100.0 * exit.bandwidth_share),
        ]);
    }
    let SpeedReport { bandwidth, kernels, threads, prompt_tokens, new_tokens, runs, .. } = report;
    let gigabytes = |bytes: f64| format!("{:.1}", bytes / 1e9);
    let [median, min, max] = [bandwidth.median, bandwidth.min, bandwidth.max].map(gigabytes);
    let memory = peak_memory.map_or(String::new(), |peak| format!(", peak memory {}", bytes(peak)));
    table.render()
        + &format!(
            "prompt {prompt_tokens}, new {new_tokens}, median of {runs} (least–most); {kernels}, {threads} threads; \
             memory read at {median} GB/s ({min}–{max}){memory}\n"
        )
}
