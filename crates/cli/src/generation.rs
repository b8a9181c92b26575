//! The generation arguments that `generate` and `chat` share.

use crate::speculate;
use crate::{formats, sampling, stories};
use anyhow::Result;
use offramp_engine::{Speculate, Speculation};
use offramp_model::Formats;
use offramp_pipeline::{Finish, Pipeline, Sampling, TextRequest};

#[derive(Clone, Debug, clap::Args)]
#[group(id = "generation_arguments")]
pub(crate) struct Arguments {
    /// Run only the first E layers [default: all]
    #[arg(long, value_name = "E")]
    exit_layer: Option<usize>,
    /// Draft with the first layers, or copies of them: auto, off, or an exit layer and a draft length, such
    /// as 6:4
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "auto", default_value = "off")]
    speculate: Speculate,
    #[command(flatten)]
    head: speculate::DraftHeadArguments,
    #[command(flatten)]
    layers: speculate::DraftLayersArguments,
    #[command(flatten)]
    reading: stories::Reading,
    #[command(flatten)]
    formats: formats::Arguments,
    /// Stop before this text, which is not printed; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    #[command(flatten)]
    sampling: sampling::Arguments,
}

impl Arguments {
    pub(crate) fn formats(&self) -> Formats {
        self.formats.formats()
    }

    /// How to read the text that shortlists count and thresholds are calibrated on.
    pub(crate) fn reading(&self) -> &stories::Reading {
        &self.reading
    }

    /// The number of layers that run.
    pub(crate) fn exit_layer(&self, pipeline: &Pipeline) -> usize {
        self.exit_layer.unwrap_or(pipeline.model().config().num_hidden_layers)
    }

    pub(crate) fn sampling(&self, pipeline: &Pipeline) -> Sampling {
        pipeline.sampling(&self.sampling.asked())
    }

    pub(crate) fn request<'a>(
        &'a self,
        pipeline: &Pipeline,
        prompt: &'a [u32],
        max_new_tokens: usize,
    ) -> TextRequest<'a> {
        TextRequest {
            prompt,
            max_new_tokens,
            exit_layer: self.exit_layer(pipeline),
            confidence: None,
            sampling: self.sampling(pipeline).options,
            stop: &self.stop,
            logprobs: None,
        }
    }

    pub(crate) fn speculates(&self) -> bool {
        self.speculate != Speculate::Off
    }

    /// The speculation. Counting tokens for a shortlist may take time.
    pub(crate) fn speculation(&self, pipeline: &Pipeline) -> Result<Speculation> {
        if self.speculate == Speculate::Off {
            return Ok(Speculation::off());
        }
        Ok(self.layers.make(&self.head, pipeline, &self.reading)?.speculation(self.speculate)?)
    }
}

/// The end of a text for JSON: the reason, and the stop string.
pub(crate) fn finish(finish: Finish) -> (&'static str, Option<String>) {
    match finish {
        Finish::StopToken => ("stop_token", None),
        Finish::StopString(stop) => ("stop_string", Some(stop)),
        Finish::Length => ("length", None),
        Finish::ContextFull => ("context_full", None),
        Finish::Reader => ("reader_gone", None),
    }
}
