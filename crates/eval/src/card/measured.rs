//! The measurements of a card, as `card.json` keeps them for other programs.

use crate::{ExitScore, SpeedReport, Spread};
use offramp_model::Formats;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// All measurements of a card.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    /// offramp's version.
    pub version: String,
    /// On text that may have been used to choose the model.
    pub validation: Option<Scores>,
    /// On text that was not used for any choice.
    pub untouched: Option<Scores>,
    /// Tokens per second.
    pub speed: Option<SpeedFigures>,
}

/// Perplexity at exits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scores {
    /// The text's name.
    pub data: String,
    /// One entry for each exit, the shallowest first.
    pub exits: Vec<ExitScore>,
}

/// Speed at exits, and how it was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpeedFigures {
    /// The processor, if the system names it.
    pub processor: Option<String>,
    /// The instruction set in use.
    pub kernels: String,
    /// The number of threads.
    pub threads: usize,
    /// Number formats of layers, head and cache.
    pub formats: String,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens decoded after the prompt.
    pub new_tokens: usize,
    /// Samples of each exit.
    pub runs: usize,
    /// One entry for each exit, the shallowest first.
    pub exits: Vec<ExitSpeedFigures>,
}

/// Speed at one exit.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ExitSpeedFigures {
    /// Layers run.
    pub exit_layer: usize,
    /// Prompt tokens per second.
    pub prefill: Spread,
    /// New tokens per second.
    pub decode: Spread,
    /// Its decoding speed over the deepest exit's.
    pub speed_up: f64,
}

impl Measured {
    /// What was measured at an exit: its perplexity, and its speed.
    pub fn at(&self, exit_layer: usize) -> (Option<&ExitScore>, Option<&ExitSpeedFigures>) {
        let scores = self.validation.as_ref().and_then(|scores| scores.at(exit_layer));
        let speed = self.speed.as_ref();
        (scores, speed.and_then(|speed| speed.exits.iter().find(|exit| exit.exit_layer == exit_layer)))
    }

    /// The exits with any measurement, the shallowest first.
    pub fn exits(&self) -> Vec<usize> {
        let scored =
            self.validation.iter().flat_map(|scores| scores.exits.iter().map(|exit| exit.exit_layer));
        let timed = self.speed.iter().flat_map(|speed| speed.exits.iter().map(|exit| exit.exit_layer));
        let mut exits: Vec<_> = scored.chain(timed).collect();
        exits.sort_unstable();
        exits.dedup();
        exits
    }
}

impl Scores {
    /// The name of some files of data: their names.
    pub fn name(data: &[PathBuf]) -> String {
        let names = data.iter().map(|path| path.file_name().unwrap_or(path.as_os_str()).to_string_lossy());
        names.collect::<Vec<_>>().join(", ")
    }

    /// The score of an exit, if it was measured.
    pub fn at(&self, exit_layer: usize) -> Option<&ExitScore> {
        self.exits.iter().find(|exit| exit.exit_layer == exit_layer)
    }

    /// The deepest exit's score, if any was measured.
    pub fn deepest(&self) -> Option<&ExitScore> {
        self.exits.iter().max_by_key(|exit| exit.exit_layer)
    }
}

impl SpeedFigures {
    /// The speeds of a bench on this machine.
    pub fn new(report: &SpeedReport) -> Self {
        let exit = |exit: &crate::ExitSpeed| ExitSpeedFigures {
            exit_layer: exit.exit_layer,
            prefill: exit.prefill,
            decode: exit.decode,
            speed_up: exit.speed_up,
        };
        let &SpeedReport { kernels, threads, prompt_tokens, new_tokens, runs, ref formats, .. } = report;
        Self {
            processor: processor(),
            kernels: kernels.to_owned(),
            threads,
            formats: name(formats),
            prompt_tokens,
            new_tokens,
            runs,
            exits: report.exits.iter().map(exit).collect(),
        }
    }
}

fn name(formats: &Formats) -> String {
    let layers = formats.layers.map_or("float", |format| format.name());
    match formats.head.filter(|&head| Some(head) != formats.layers) {
        Some(head) => format!("{layers}, head {}", head.name()),
        None => layers.to_owned(),
    }
}

/// The processor's name, where Linux reports it.
fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
