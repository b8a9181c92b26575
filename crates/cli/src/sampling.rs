//! The sampling arguments of a command. The model's folder decides what is not given.

use offramp_pipeline::{Sampling, UserSampling};
use serde::Serialize;

#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "sampling_arguments")]
pub(crate) struct Arguments {
    /// Below 1 sharpens the distribution, above 1 flattens it; 0 is greedy [default:
    /// generation_config.json's, else 0.6]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Keep only the K most likely tokens; 0 keeps all [default: generation_config.json's, else 0]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Keep the most likely tokens whose probabilities sum to this [default: generation_config.json's, else
    /// 0.9]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Above 1 makes tokens that have occurred less likely [default: generation_config.json's, else 1]
    #[arg(long, value_name = "R", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Keep only tokens that are at least this share as likely as the most likely one
    #[arg(long, value_name = "P", default_value_t = 0.0, allow_negative_numbers = true)]
    min_p: f32,
    /// Above 0 makes tokens less likely that have occurred in the new text
    #[arg(long, value_name = "R", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// The same, for each time that they have occurred
    #[arg(long, value_name = "R", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// The same seed gives the same text
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl Arguments {
    pub(crate) fn asked(&self) -> UserSampling {
        let Self { temperature, top_k, top_p, repetition_penalty, min_p, .. } = *self;
        let Self { presence_penalty, frequency_penalty, seed, .. } = *self;
        UserSampling {
            do_sample: None,
            temperature,
            top_k,
            top_p,
            repetition_penalty,
            min_p,
            presence_penalty,
            frequency_penalty,
            seed,
        }
    }
}

/// The sampling options in a JSON result.
#[derive(Serialize)]
pub(crate) struct SamplingAnswer {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    repetition_penalty: f32,
    min_p: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
    seed: u64,
    from_generation_config: bool,
}

impl From<&Sampling> for SamplingAnswer {
    fn from(sampling: &Sampling) -> Self {
        let options = sampling.options;
        Self {
            temperature: options.temperature,
            top_k: options.top_k,
            top_p: options.top_p,
            repetition_penalty: options.repetition_penalty,
            min_p: options.min_p,
            presence_penalty: options.presence_penalty,
            frequency_penalty: options.frequency_penalty,
            seed: options.seed,
            from_generation_config: sampling.from_file,
        }
    }
}
