//! `offramp verify`: checks that speculative decoding gives the texts of plain decoding.

use crate::number::grouped;
use crate::output;
use crate::progress::counted;
use crate::speculate;
use crate::{formats, source, stories};
use anyhow::Result;
use offramp_engine::{Draft, SamplingOptions, Speculate};
use offramp_eval::{NamedSpeculation, VerifyReport, openings};
use serde::Serialize;
use std::fmt;
use std::path::{Path, PathBuf};

/// About the length of a story: this many tokens are read for each prompt.
const STORY: u64 = 1000;

/// Decode many prompts plainly and with speculation, and count the equal texts
///
/// If a text differs, the exit code is 1 and the first differences are listed. A text with speculation must
/// equal that of plain decoding, token for token, greedy and sampled. Prompts are the openings of stories,
/// encoded as corpora are: as plain text, without special tokens.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  offramp verify\n  \
                  offramp verify runs/first-light --data valid.txt --prompts 100 --speculate auto,6:4,12:2")]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// Stories whose openings are continued, as for `offramp eval` [default: those that come with offramp]
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    #[command(flatten)]
    reading: stories::Reading,
    /// At most N prompts
    #[arg(long, value_name = "N", default_value_t = 24)]
    prompts: usize,
    /// Tokens of each opening
    #[arg(long, value_name = "N", default_value_t = 16)]
    prompt_tokens: usize,
    /// At most N new tokens
    #[arg(long, value_name = "N", default_value_t = 128)]
    max_new_tokens: usize,
    /// Kinds of speculation, separated by commas: auto, or an exit layer and a draft length [default: auto, a
    /// quarter of the depth with drafts of 4 and half of it with drafts of 2]
    #[arg(long, value_name = "HOW,…", value_delimiter = ',')]
    speculate: Vec<Speculate>,
    #[command(flatten)]
    head: speculate::DraftHeadArguments,
    #[command(flatten)]
    layers: speculate::DraftLayersArguments,
    /// Below 1 sharpens the distribution; 0 is greedy [default: both 0 and 1]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// The same seed gives the same texts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    formats: formats::Arguments,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "output::path")]
    model: &'a Path,
    data: String,
    reports: Vec<Reported>,
}

/// The comparison at one temperature.
#[derive(Serialize)]
struct Reported {
    temperature: f32,
    prompts: usize,
    ways: Vec<String>,
    #[serde(flatten)]
    report: VerifyReport,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let source = arguments.source.source()?;
    let pipeline = source.open(&arguments.formats.formats())?;
    let most = STORY.saturating_mul(arguments.prompts as u64);
    let stream = stories::open(&arguments.data, &arguments.reading, pipeline.tokenizer(), most)?;
    let end_of_text = pipeline.tokenizer().end_of_text();
    let prompts = openings(&stream, end_of_text, arguments.prompts, arguments.prompt_tokens)?;
    let hows = match arguments.speculate.is_empty() {
        true => usual(pipeline.model().config().num_hidden_layers, arguments.layers.are_copies()),
        false => arguments.speculate.clone(),
    };
    let drafts = arguments.layers.make(&arguments.head, &pipeline, &arguments.reading)?;
    let mut reports = Vec::new();
    for temperature in arguments.temperature.map_or(vec![0.0, 1.0], |temperature| vec![temperature]) {
        let sampling = SamplingOptions { temperature, seed: arguments.seed, ..Default::default() };
        let options = pipeline.generate_options(arguments.max_new_tokens, sampling);
        let way = |how: &Speculate| {
            anyhow::Ok(NamedSpeculation { name: how.to_string(), speculation: drafts.speculation(*how)? })
        };
        let mut ways = hows.iter().map(way).collect::<Result<Vec<NamedSpeculation>>>()?;
        let mut progress = counted("decoded", "texts");
        let report = offramp_eval::verify(pipeline.model(), &prompts, &options, &mut ways, &mut progress)?;
        drop(progress);
        let ways = ways.into_iter().map(|way| way.name).collect();
        let reported = Reported { temperature, prompts: prompts.len(), ways, report };
        if !json {
            output::text(&describe(&reported))?;
        }
        reports.push(reported);
    }
    let differ: usize = reports.iter().map(|reported| reported.report.differences.len()).sum();
    if json {
        output::json(&Answer { model: source.path(), data: stories::name(&arguments.data), reports })?;
    }
    if differ == 0 { Ok(()) } else { Err(TextsDiffer(differ).into()) }
}

/// The number of texts that differ: a failure, and not the user's mistake.
#[derive(Debug)]
pub(crate) struct TextsDiffer(pub(crate) usize);

impl fmt::Display for TextsDiffer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let differ = self.0;
        write!(
            out,
            "{differ} texts differ from plain decoding: this is a fault of offramp's, please report it"
        )
    }
}

impl std::error::Error for TextsDiffer {}

/// The defaults for a model of `depth` layers; for 24 they are `auto`, `6:4` and `12:2`. Where copies are
/// named to draft, all layers do too: `24:4`.
fn usual(depth: usize, copies: bool) -> Vec<Speculate> {
    let drafts = [(depth / 4, 4), (depth / 2, 2)].into_iter().filter(|(exit_layer, _)| *exit_layer > 0);
    let whole = (depth, 4);
    let fixed = |(exit_layer, num_speculations)| Speculate::Fixed(Draft { exit_layer, num_speculations });
    let drafts = drafts.chain(copies.then_some(whole)).map(fixed);
    [Speculate::Auto].into_iter().chain(drafts).collect()
}

fn describe(reported: &Reported) -> String {
    let Reported { temperature, prompts, ways, report } = reported;
    let sampling =
        if *temperature == 0.0 { "greedy".to_owned() } else { format!("temperature {temperature}") };
    let rate = 100.0 * report.accepted as f64 / report.drafted.max(1) as f64;
    let mut lines = format!(
        "{sampling}: {} of {} texts equal, {} tokens compared ({prompts} prompts, {}); {} of {} drafted tokens \
         accepted ({rate:.0} %)\n",
        report.equal,
        report.texts,
        grouped(report.tokens as u64),
        ways.join(", "),
        grouped(report.accepted as u64),
        grouped(report.drafted as u64),
    );
    for difference in report.differences.iter().take(5) {
        let (prompt, token) = (difference.prompt + 1, difference.token + 1);
        lines += &format!("  prompt {prompt}, {}: new token {token} is another\n", difference.way);
    }
    lines
}
