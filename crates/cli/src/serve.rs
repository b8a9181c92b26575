//! `offramp serve`: an OpenAI-compatible server with a page.

use crate::signals::{self, EndsGently};
use crate::stories::{self, Reading};
use crate::{formats, output, source, speculate};
use anyhow::{Result, bail};
use offramp_engine::{ConfidenceExit, Speculate};
use offramp_eval::{CalibrationOptions, calibrate};
use offramp_pipeline::Pipeline;
use offramp_serve::{Access, Calibrate, ServeOptions, Served};
use signal_hook::consts::SIGINT;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// About this many tokens of text calibrate an agreement.
const TOKENS: u64 = 2048;

/// Serve a model over HTTP, as OpenAI's interface has it, and a page to play with
///
/// Many texts run together, and none of them changes by that: an answer is the text that offramp generate
/// gives, whatever the load. Requests may name an exit layer, speculation or an agreement. The page is at /,
/// and /openapi.json describes everything.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp serve\n  offramp serve path/to/model --port 8000 --api-key-file keys.txt\n  curl http://127.0.0.1:8080/v1/completions -d '{\"prompt\": \"Once upon a time\", \"exit_layer\": 12}'"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: source::ModelArgument,
    /// The address to listen on; 0.0.0.0 answers other machines, too
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    host: String,
    /// The port; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// A key that requests must bear; may be given several times
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// A file of such keys, one in each line
    #[arg(long, value_name = "PATH")]
    api_key_file: Option<PathBuf>,
    /// Pages whose scripts may ask: scheme, host and port; * is any. May be given several times
    #[arg(long, value_name = "ORIGIN")]
    cors_origin: Vec<String>,
    /// Memory for keys and values of all texts, and for prefixes that are kept
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size)]
    memory: u64,
    /// Texts that run at a time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = number)]
    max_texts: usize,
    /// Tokens of a text, its prompt among them [default: the model's context]
    #[arg(long, value_name = "N", value_parser = number)]
    context: Option<usize>,
    /// Texts that may wait beside those that run; more are refused for a while
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue: usize,
    /// What happens where a request does not say: auto, off, or an exit layer and a draft length, as 6:4
    #[arg(long, value_name = "HOW", default_value = "auto")]
    speculate: Speculate,
    #[command(flatten)]
    head: speculate::DraftHeadArguments,
    #[command(flatten)]
    layers: speculate::DraftLayersArguments,
    /// The text on which agreements are calibrated [default: the stories that come with offramp]
    #[arg(long, value_name = "PATH")]
    calibrate_on: Vec<PathBuf>,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    formats: formats::Arguments,
    /// Seconds that texts may go on after Ctrl-C or SIGTERM
    #[arg(long, value_name = "S", default_value_t = 30)]
    grace: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    // Each connection is an open file.
    offramp_files::allow_many_open_files();
    let source = arguments.source.source()?;
    let template = source.own_chat_template()?;
    let access = arguments.access()?;
    let pipeline = source.open(&arguments.formats.formats())?;
    // Whatever --speculate says: a request may ask for drafts.
    let draft_head = arguments.head.make(&pipeline, &arguments.reading)?;
    let options = ServeOptions {
        host: arguments.host.clone(),
        port: arguments.port,
        access,
        memory: arguments.memory,
        max_texts: arguments.max_texts,
        queue: arguments.queue,
        context: arguments.context,
        speculate: arguments.speculate,
        draft_head,
        draft_format: arguments.layers.draft_format,
        calibrate: arguments.calibrate(&pipeline)?,
        name: source.name(),
        root: source.path().display().to_string(),
        grace: Duration::from_secs(arguments.grace),
    };
    let gently = EndsGently::begin(|signal| {
        output::note(match signal {
            SIGINT => "ending: texts that run may go on; Ctrl-C again to leave at once",
            _ => "told to end: texts that run may go on",
        });
    });
    let flag = gently.flag();
    let listening = |address| output::note(&format!("listening on http://{address}"));
    let stop = || flag.load(Ordering::Acquire);
    let Served { cut_off } = offramp_serve::serve(pipeline, template, options, listening, stop)?;
    if cut_off > 0 {
        output::note(&format!("{cut_off} texts were cut off: --grace gives them more time"));
    }
    Ok(signals::stopped().map_or(ExitCode::SUCCESS, ExitCode::from))
}

impl Arguments {
    fn access(&self) -> Result<Access> {
        let mut api_keys = self.api_key.clone();
        if let Some(path) = &self.api_key_file {
            let unread = |source| offramp_pipeline::Error::Read { path: path.clone(), source };
            let text = fs::read_to_string(path).map_err(unread)?;
            let keys = text.lines().map(str::trim).filter(|line| !line.is_empty());
            let before = api_keys.len();
            api_keys.extend(keys.map(str::to_owned));
            if api_keys.len() == before {
                bail!("{} holds no key: write one in each line", path.display());
            }
        }
        if api_keys.iter().any(String::is_empty) {
            bail!("--api-key is empty: give a key, or leave it out");
        }
        Ok(Access { api_keys, cors_origins: self.cors_origin.clone(), loopback: false })
    }

    /// Finds policies for agreements, on the stories.
    fn calibrate(&self, pipeline: &Pipeline) -> Result<Option<Calibrate>> {
        let layers = pipeline.model().config().num_hidden_layers;
        if layers < 2 {
            return Ok(None);
        }
        let stream = stories::open(&self.calibrate_on, &self.reading, pipeline.tokenizer(), TOKENS + 1)?;
        let model = Arc::clone(pipeline.model());
        let policy = move |agreement| -> std::result::Result<ConfidenceExit, String> {
            let exits = vec![(2 * layers / 3).max(1)];
            let options = CalibrationOptions { exits, agreement, context: None, max_tokens: Some(TOKENS) };
            let found = calibrate(&model, &stream, &options, &mut |_, _| ());
            found.map(|found| found.policy()).map_err(|error| error.to_string())
        };
        Ok(Some(Arc::new(policy)))
    }
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| "give a whole number from 1 on".to_owned())
}

/// Bytes, as `512MiB`, `1GiB` or a plain number.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => return Err("give a size such as 512MiB or 1GiB".to_owned()),
    };
    let number = digits.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number
        .map(|number| (number * unit as f64) as u64)
        .ok_or_else(|| "give a size such as 512MiB or 1GiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("512MiB", 512 << 20), ("1GiB", 1 << 30), ("1.5k", 1536), ("2GB", 2_000_000_000), ("7", 7)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "GiB", "-1GiB", "1XB", "inf", "nanMiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
