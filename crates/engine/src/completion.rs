//! What is asked of a text, and what comes of it.

use crate::constraint::Constraint;
use crate::logprobs::Logprobs;
use crate::sampler::SamplingOptions;
use offramp_model::Work;
use std::time::Duration;

/// What to generate.
#[derive(Clone, Debug, Default)]
pub struct GenerateOptions {
    /// At most so many tokens.
    pub max_new_tokens: usize,
    /// Tokens that end the text; they are not part of it.
    pub stop_tokens: Vec<u32>,
    /// Ids from here on are never chosen: a vocabulary that was rounded up has some that stand for no text.
    /// At least 1.
    pub token_limit: Option<usize>,
    /// How each token is chosen.
    pub sampling: SamplingOptions,
    /// What is added to the logits of some ids before a token is chosen.
    pub logit_bias: Vec<(u32, f32)>,
    /// What may be chosen.
    pub constraint: Option<Box<dyn Constraint>>,
    /// Log-probabilities of each new token, and of so many of the most likely ones in its place.
    pub logprobs: Option<usize>,
    /// The same for each token of the prompt but the first.
    pub prompt_logprobs: Option<usize>,
}

/// How a token came into the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The full model chose it; nobody had drafted one there.
    Chosen,
    /// It was drafted, and the full model chose it too.
    Accepted,
    /// The full model chose it in place of one that was drafted.
    Corrected,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A stop token came.
    StopToken,
    /// There are as many tokens as were asked for.
    Length,
    /// The session is full.
    ContextFull,
    /// Its reader stopped it.
    Stopped,
}

/// A token that came.
#[derive(Clone, Debug, PartialEq)]
pub struct NewToken {
    /// Its id.
    pub id: u32,
    /// How it came into the text.
    pub origin: Origin,
    /// Layers that were run for the logits from which it was chosen.
    pub depth: usize,
    /// Its log-probability, where it was asked for.
    pub logprobs: Option<Logprobs>,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The new tokens, without prompt and stop token.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub reason: StopReason,
    /// Log-probabilities of the prompt's tokens but the first, where they were asked for.
    pub prompt_logprobs: Vec<Logprobs>,
    /// What it took.
    pub statistics: Statistics,
}

/// Tokens of a draft that are counted one by one.
pub const DRAFT_POSITIONS: usize = 16;

/// What a generation took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Tokens of the prompt that were run.
    pub prompt_tokens: usize,
    /// Tokens before them that the session held already.
    pub cached_tokens: usize,
    /// Tokens of the text.
    pub new_tokens: usize,
    /// Tokens that were chosen after the first.
    pub decoded_tokens: usize,
    /// Rounds that they took: as many without drafts, fewer with good ones.
    pub rounds: usize,
    /// Tokens that were drafted.
    pub drafted: usize,
    /// Those of them that the full model chose too.
    pub accepted: usize,
    /// Rounds in which it chose otherwise, and the rest of the draft was lost.
    pub rejected: usize,
    /// Rounds with a draft.
    pub drafts: usize,
    /// Those whose first token, first two, … were accepted.
    pub accepted_at: [u32; DRAFT_POSITIONS],
    /// Layers that a token took in the mean, where a confidence exit is set; `None` if none was decoded so.
    pub mean_depth: Option<f64>,
    /// Bytes and operations of everything, the prompt among it; where texts shared calls, by their rows.
    pub work: Work,
    /// From the start to the prompt's logits.
    pub prefill: Duration,
    /// From the start to the first token.
    pub time_to_first_token: Duration,
    /// Everything after the first token.
    pub decode: Duration,
}

impl Statistics {
    /// Prompt tokens per second.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill.as_secs_f64()
    }

    /// Tokens accepted of those drafted; `None` if none was drafted.
    pub fn acceptance_rate(&self) -> Option<f64> {
        (self.drafted > 0).then(|| self.accepted as f64 / self.drafted as f64)
    }

    /// The chance that a drafted token is accepted if all before it in the draft were; `None` if none was
    /// drafted.
    pub fn acceptance_of_next(&self) -> Option<f64> {
        let compared = self.accepted + self.rejected;
        (compared > 0).then(|| self.accepted as f64 / compared as f64)
    }

    /// Decoded tokens per second; `None` if no token was decoded after the first.
    pub fn decode_tokens_per_second(&self) -> Option<f64> {
        (self.decoded_tokens > 0).then(|| self.decoded_tokens as f64 / self.decode.as_secs_f64())
    }
}
