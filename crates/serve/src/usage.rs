//! How many tokens a request took, and how long.

use crate::answers::Answer;
use offramp_engine::Statistics;
use offramp_pipeline::Finish;
use serde::Serialize;
use utoipa::ToSchema;

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Usage {
    pub(crate) prompt_tokens: usize,
    pub(crate) completion_tokens: usize,
    pub(crate) total_tokens: usize,
    pub(crate) prompt_tokens_details: PromptDetails,
}

/// What of the prompt was there already.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct PromptDetails {
    pub(crate) cached_tokens: usize,
}

/// Times and counts, in llama.cpp's names and then in ours.
#[derive(Clone, Copy, Debug, Default, Serialize, ToSchema)]
pub(crate) struct Timings {
    /// Tokens of the prompts that were run.
    prompt_n: usize,
    /// Milliseconds that the slowest prompt took.
    prompt_ms: f64,
    /// Tokens of the prompts that were in the cache.
    cached_n: usize,
    /// New tokens of all texts.
    predicted_n: usize,
    /// Milliseconds from the first token of the slowest text to its last.
    predicted_ms: f64,
    /// New tokens after the first per second, of all texts together.
    predicted_per_second: Option<f64>,
    /// Tokens that were drafted.
    draft_n: usize,
    /// Those of them that the full model chose too.
    draft_n_accepted: usize,
    /// Layers that run.
    exit_layer: usize,
    /// Layers that a token took in the mean.
    mean_depth: f64,
}

impl Usage {
    pub(crate) fn new(prompt_tokens: usize, completion_tokens: usize, cached_tokens: usize) -> Self {
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens + completion_tokens,
            prompt_tokens_details: PromptDetails { cached_tokens },
        }
    }
}

impl Timings {
    /// Of texts whose tokens took `depths` layers.
    pub(crate) fn of(all: &[Statistics], exit_layer: usize, depths: &[usize]) -> Self {
        let mut timings = Self { exit_layer, mean_depth: exit_layer as f64, ..Self::default() };
        let mut decoded = 0;
        for statistics in all {
            timings.prompt_n += statistics.prompt_tokens;
            timings.cached_n += statistics.cached_tokens;
            timings.predicted_n += statistics.new_tokens;
            timings.draft_n += statistics.drafted;
            timings.draft_n_accepted += statistics.accepted;
            timings.prompt_ms = timings.prompt_ms.max(1e3 * statistics.prefill.as_secs_f64());
            timings.predicted_ms = timings.predicted_ms.max(1e3 * statistics.decode.as_secs_f64());
            decoded += statistics.decoded_tokens;
        }
        if decoded > 0 && timings.predicted_ms > 0.0 {
            timings.predicted_per_second = Some(1e3 * decoded as f64 / timings.predicted_ms);
        }
        if !depths.is_empty() {
            timings.mean_depth = depths.iter().sum::<usize>() as f64 / depths.len() as f64;
        }
        timings
    }

    /// Of complete answers.
    pub(crate) fn of_answers(answers: &[Answer], exit_layer: usize) -> Self {
        let all: Vec<Statistics> = answers.iter().map(|answer| answer.ended.statistics).collect();
        let tokens = answers.iter().flat_map(|answer| &answer.tokens);
        Self::of(&all, exit_layer, &tokens.map(|token| token.depth).collect::<Vec<_>>())
    }
}

/// OpenAI's reason, and vLLM's: the stop string, if one ended the text.
pub(crate) fn finish(finish: &Finish) -> (&'static str, Option<String>) {
    match finish {
        Finish::StopToken | Finish::Reader => ("stop", None),
        Finish::StopString(stop) => ("stop", Some(stop.clone())),
        Finish::Length | Finish::ContextFull => ("length", None),
    }
}
