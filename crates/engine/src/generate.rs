//! Prompt in, tokens out.

use crate::sampler::{Sampler, SamplingOptions};
use crate::session::Session;
use crate::{Error, Result};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// At most so many tokens.
    pub max_new_tokens: usize,
    /// Tokens that end the text; they are not part of it.
    pub stop_tokens: Vec<u32>,
    /// Ids from here on are never chosen: a vocabulary that was rounded up has some that stand for no text.
    pub token_limit: Option<usize>,
    /// How each token is chosen.
    pub sampling: SamplingOptions,
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
    /// The callback said so.
    Callback,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The new tokens, without prompt and stop token.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub reason: StopReason,
    /// What it took.
    pub statistics: Statistics,
}

/// What a generation took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were handed to the callback.
    pub new_tokens: usize,
    /// Tokens that went through the model one by one, after the prompt.
    pub decoded_tokens: usize,
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

    /// Decoded tokens per second; `None` if no token was decoded after the first.
    pub fn decode_tokens_per_second(&self) -> Option<f64> {
        (self.decoded_tokens > 0).then(|| self.decoded_tokens as f64 / self.decode.as_secs_f64())
    }
}

/// Feeds `prompt` to `session` and continues it, handing each token to `on_token` as it comes.
///
/// Unless a stop token came, the last of the new tokens is not in the session when this returns:
/// nothing was to be predicted from it. Who goes on with the text feeds it first.
///
/// # Errors
/// If the prompt is empty, does not fit or holds an unknown token, or a sampling option is out of
/// range: then the session is as it was. If logits are not finite.
pub fn generate(
    session: &mut Session<'_>,
    prompt: &[u32],
    options: &GenerateOptions,
    on_token: &mut dyn FnMut(u32) -> ControlFlow<()>,
) -> Result<Generation> {
    let mut sampler = Sampler::new(options.sampling)?;
    if prompt.is_empty() {
        return Err(Error::NoTokens);
    }
    let start = Instant::now();
    let mut statistics = Statistics { prompt_tokens: prompt.len(), ..Statistics::default() };
    let mut logits = session.feed(prompt)?.to_vec();
    statistics.prefill = start.elapsed();
    let mut tokens = Vec::new();
    let reason = loop {
        if tokens.len() == options.max_new_tokens {
            break StopReason::Length;
        }
        let choices = options.token_limit.map_or(logits.len(), |limit| limit.min(logits.len()));
        let token = sampler.next(&logits[..choices], session.tokens())?;
        if tokens.is_empty() {
            statistics.time_to_first_token = start.elapsed();
        }
        if options.stop_tokens.contains(&token) {
            break StopReason::StopToken;
        }
        tokens.push(token);
        if on_token(token).is_break() {
            break StopReason::Callback;
        }
        if tokens.len() == options.max_new_tokens {
            break StopReason::Length;
        }
        if session.tokens().len() == session.capacity() {
            break StopReason::ContextFull;
        }
        logits.clear();
        logits.extend_from_slice(session.feed(&[token])?);
        statistics.decoded_tokens += 1;
    };
    statistics.new_tokens = tokens.len();
    statistics.decode = start.elapsed().saturating_sub(statistics.time_to_first_token);
    Ok(Generation { tokens, reason, statistics })
}
