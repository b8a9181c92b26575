//! `offramp eval`: perplexity, bits per byte and agreement at every exit.

use crate::number::{fixed, grouped, percent};
use crate::output::{self, TextTable};
use crate::progress::ProgressBar;
use crate::{formats, source, stories};
use anyhow::Result;
use offramp_eval::{ExitScore, PerplexityOptions};
use offramp_pipeline::Pipeline;
use offramp_text::TokenStream;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Measure perplexity at every exit, in one pass over the data
///
/// Perplexity is comparable between exits, and between models with the same tokenizer; bits/byte also between
/// tokenizers. Agreement is the share of tokens at which an exit's most likely token is the full model's. The
/// data is plain text: names of special tokens in it stay text, and no beginning-of-text token is added.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  offramp eval runs/first-light --data valid.txt --exits 6,12,18,24")]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// Stories (.txt, .jsonl, .json, .csv, .parquet, also packed as .gz or .zst; a folder or a pattern of
    /// them; - is standard input), or a folder that `offramp prepare` wrote, whose validation split is read;
    /// repeat it for several
    #[arg(long, value_name = "PATH", required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    reading: stories::Reading,
    /// Exit layers, separated by commas [default: all]
    #[arg(long, value_name = "E,…", value_delimiter = ',')]
    exits: Vec<usize>,
    /// Tokens of context [default: 512, or the model's context if that is shorter]
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Score about N tokens at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    #[command(flatten)]
    formats: formats::Arguments,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "output::path")]
    model: &'a Path,
    data: String,
    /// `None` if only a part of a prepared folder was read.
    stories: Option<u64>,
    exits: &'a [ExitScore],
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let source = arguments.source.source()?;
    let pipeline = source.open(&arguments.formats.formats())?;
    // One more than are scored: the first token is not predicted.
    let most = arguments.max_tokens.map_or(u64::MAX, |tokens| tokens.saturating_add(1));
    let stream = stories::open(&arguments.data, &arguments.reading, pipeline.tokenizer(), most)?;
    let options = PerplexityOptions {
        exits: arguments.exits.clone(),
        context: arguments.context,
        max_tokens: arguments.max_tokens,
    };
    let scores = score(&pipeline, &stream, &options)?;
    let (data, stories) = (stories::name(&arguments.data), stream.counts().stories);
    let stories = (stories > 0).then_some(stories);
    if json {
        return Ok(output::json(&Answer { model: source.path(), data, stories, exits: &scores })?);
    }
    let found = match stories {
        Some(1) => format!("{data}: 1 story\n"),
        Some(stories) => format!("{data}: {} stories\n", grouped(stories)),
        None => String::new(),
    };
    output::text(&(table(&scores) + &found))?;
    Ok(())
}

/// Scores every exit. Shows progress on stderr.
pub(crate) fn score(
    pipeline: &Pipeline,
    stream: &TokenStream,
    options: &PerplexityOptions,
) -> Result<Vec<ExitScore>> {
    let mut progress = ProgressBar::new(1);
    let mut show = |done: u64, total: u64| {
        progress.report(done, total, |left| {
            format!("scored {} of {} tokens, {left} left", grouped(done), grouped(total))
        });
    };
    Ok(offramp_eval::evaluate(pipeline, stream, options, &mut show)?)
}

/// A row for each exit, then the size of the text.
pub(crate) fn table(scores: &[ExitScore]) -> String {
    let mut table = TextTable::new(["exit", "perplexity", "nats/token", "bits/byte", "agreement"]);
    for score in scores {
        table.row([
            score.exit_layer.to_string(),
            fixed(score.perplexity, 3),
            fixed(score.nats_per_token, 4),
            fixed(score.bits_per_byte, 4),
            percent(score.agreement, 2),
        ]);
    }
    let (tokens, bytes) = scores.first().map_or((0, 0), |score| (score.tokens, score.bytes));
    table.render()
        + &format!(
            "over {} tokens, {} bytes of text; corpora are text: no special tokens read or added\n",
            grouped(tokens),
            grouped(bytes)
        )
}
