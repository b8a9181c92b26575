//! `offramp bench --texts`: measures the tokens per second of many texts together.

use super::describe::spread;
use super::{Arguments, formats};
use crate::number::{percent, rate, times};
use crate::output::{self, TextTable};
use crate::progress::counted;
use anyhow::Result;
use offramp_eval::{ManyTextsOptions, ManyTextsReport, SpeedOptions, many_texts};
use offramp_model::{Formats, Llama};
use offramp_pipeline::Drafts;
use serde::Serialize;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "output::path")]
    model: PathBuf,
    reports: &'a [ManyTextsReport],
}

/// Measures every requested format; `load` returns the model in a format.
pub(super) fn run(
    arguments: &Arguments,
    path: PathBuf,
    options: &SpeedOptions,
    load: &dyn Fn(&Formats) -> offramp_eval::Result<Llama>,
    json: bool,
) -> Result<()> {
    let mut reports = Vec::new();
    for formats in formats(arguments) {
        let model = Arc::new(load(&formats)?);
        let drafts = Drafts::usual(&model, arguments.layers.draft_format)?;
        let options = ManyTextsOptions {
            texts: arguments.texts.clone(),
            prompt_tokens: options.prompt_tokens,
            new_tokens: options.new_tokens,
            runs: options.runs,
            exit_layer: options.exits.iter().copied().max().unwrap_or(model.config().num_hidden_layers),
            speculation: drafts.speculation(arguments.speculate)?,
        };
        reports.push(many_texts(&model, &options, &mut counted("timed", "samples"))?);
    }
    match json {
        true => output::json(&Answer { model: path, reports: &reports })?,
        false => output::text(&table(&reports))?,
    }
    Ok(())
}

fn table(reports: &[ManyTextsReport]) -> String {
    let mut table = TextTable::new([
        "format",
        "texts",
        "decode tokens/s",
        "of each",
        "speed-up",
        "prefill tokens/s",
        "accepted",
    ]);
    for report in reports {
        for row in &report.texts {
            table.row([
                crate::formats::name(&report.formats),
                row.texts.to_string(),
                spread(&row.decode),
                rate(row.decode_of_each.median),
                times(row.speed_up),
                spread(&row.prefill),
                row.acceptance_rate.map_or("–".to_owned(), |share| percent(share, 0)),
            ]);
        }
    }
    let Some(report) = reports.first() else { return table.render() };
    let ManyTextsReport { kernels, threads, prompt_tokens, new_tokens, runs, .. } = report;
    table.render()
        + &format!(
            "prompts {prompt_tokens}, new {new_tokens} of each text, all texts together, median of {runs} (least–most); \
             {kernels}, threads {threads}\n"
        )
}
