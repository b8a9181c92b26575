//! Prompt in, tokens out.

use crate::confidence::Depths;
use crate::sampler::{Sampler, SamplingOptions};
use crate::session::Session;
use crate::speculate::{Chooser, Round, Speculation};
use crate::{Error, Result};
use offramp_model::Work;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What to generate.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// At most so many tokens.
    pub max_new_tokens: usize,
    /// Tokens that end the text; they are not part of it.
    pub stop_tokens: Vec<u32>,
    /// Ids from here on are never chosen: a vocabulary that was rounded up has some that stand for no text. At least 1.
    pub token_limit: Option<usize>,
    /// How each token is chosen.
    pub sampling: SamplingOptions,
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
    /// Layers that a token took in the mean, where a confidence exit is set; `None` if none was decoded so.
    pub mean_depth: Option<f64>,
    /// Bytes and operations of everything, the prompt among it.
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

    /// The chance that a drafted token is accepted if all before it in the draft were; `None` if none was drafted.
    pub fn acceptance_of_next(&self) -> Option<f64> {
        let compared = self.accepted + self.rejected;
        (compared > 0).then(|| self.accepted as f64 / compared as f64)
    }

    /// Decoded tokens per second; `None` if no token was decoded after the first.
    pub fn decode_tokens_per_second(&self) -> Option<f64> {
        (self.decoded_tokens > 0).then(|| self.decoded_tokens as f64 / self.decode.as_secs_f64())
    }
}

/// Whether [`generate`] can begin, before anything is computed.
///
/// # Errors
/// If the prompt is empty, does not fit or holds an unknown token, an option is out of range, no token may be chosen,
/// the draft head is another model's, or there are both drafts and a confidence exit.
pub fn check(
    session: &Session<'_>,
    prompt: &[u32],
    options: &GenerateOptions,
    speculation: &Speculation,
) -> Result<()> {
    Sampler::new(options.sampling)?;
    if prompt.is_empty() {
        return Err(Error::NoTokens);
    }
    let tokens = session.tokens().len() + prompt.len();
    if tokens > session.capacity() {
        return Err(Error::ContextFull { tokens, context: session.capacity() });
    }
    if options.token_limit == Some(0) {
        return Err(Error::NoChoice);
    }
    speculation.check_head(session.model())?;
    let config = session.model().config();
    prompt.iter().try_for_each(|&token| config.check_token(token))?;
    if speculation.drafts() && session.confidence_exit().is_some() {
        return Err(Error::ConfidenceWithDrafts);
    }
    speculation.draft().map_or(Ok(()), |draft| Ok(config.check_exit_layer(draft.exit_layer)?))
}

/// Feeds `prompt` to `session` and continues it, handing each token to `on_token` as it comes. The text is the same
/// whatever `speculation` does. With a confidence exit set, tokens of the prompt do not leave early (a prompt of a single
/// token may) and the others may; nothing can be drafted then.
///
/// Unless a stop token came, the last of the new tokens is not in the session when this returns:
/// nothing was to be predicted from it. Who goes on with the text feeds it first.
///
/// # Errors
/// If the prompt is empty, does not fit or holds an unknown token, a sampling option is out of range, no token may be
/// chosen, the draft head is another model's, or there are both drafts and a confidence exit; or if logits are not finite,
/// of which tokens that came before have been handed out. The session holds what it held before, in any case.
pub fn generate(
    session: &mut Session<'_>,
    prompt: &[u32],
    options: &GenerateOptions,
    speculation: &mut Speculation,
    on_token: &mut dyn FnMut(u32, Origin) -> ControlFlow<()>,
) -> Result<Generation> {
    check(session, prompt, options, speculation)?;
    let sampler = Sampler::new(options.sampling)?;
    let mut chooser =
        Chooser { sampler, token_limit: options.token_limit, stop_tokens: &options.stop_tokens };
    let before = session.tokens().len();
    let generation = go_on(session, (prompt, options.max_new_tokens), &mut chooser, speculation, on_token);
    if generation.is_err() {
        session.truncate(before);
    }
    generation
}

/// The text, of at most so many new tokens; where it fails, the session is left in the middle of it.
fn go_on(
    session: &mut Session<'_>,
    (prompt, max_new_tokens): (&[u32], usize),
    chooser: &mut Chooser<'_>,
    speculation: &mut Speculation,
    on_token: &mut dyn FnMut(u32, Origin) -> ControlFlow<()>,
) -> Result<Generation> {
    let (start, work) = (Instant::now(), session.work());
    let mut statistics = Statistics { prompt_tokens: prompt.len(), ..Statistics::default() };
    session.feed(prompt)?;
    statistics.prefill = start.elapsed();
    let begun = session.tokens().len();
    let (mut tokens, mut next) = (Vec::new(), Round::default());
    let reason = 'text: loop {
        if tokens.len() == max_new_tokens {
            break StopReason::Length;
        }
        if tokens.is_empty() {
            next.tokens.push(chooser.choose(session.logits(), session.tokens())?.0);
            statistics.time_to_first_token = start.elapsed();
        }
        for (index, &token) in next.tokens.iter().enumerate() {
            statistics.decoded_tokens += usize::from(!tokens.is_empty());
            if chooser.stop_tokens.contains(&token) {
                break 'text StopReason::StopToken;
            }
            tokens.push(token);
            if on_token(token, next.origin(index)).is_break() {
                break 'text StopReason::Callback;
            }
        }
        let (Some(&newest), held) = (tokens.last(), session.tokens().len()) else {
            unreachable!("a token came")
        };
        if tokens.len() == max_new_tokens {
            break StopReason::Length;
        }
        if held == session.capacity() {
            break StopReason::ContextFull;
        }
        // A round ends with a token that nobody drafted, and none is computed in vain.
        let room = (max_new_tokens - tokens.len() - 1).min(session.capacity() - held - 1);
        next = speculation.round(session, chooser, newest, room)?;
        statistics.rounds += 1;
        statistics.drafted += next.drafted;
        statistics.accepted += next.accepted;
        statistics.rejected += usize::from(next.accepted < next.drafted);
    };
    // A reader who left in the middle of a round did not hear its end.
    let in_session = tokens.len() - usize::from(reason != StopReason::StopToken && !tokens.is_empty());
    session.truncate(begun + in_session);
    statistics.new_tokens = tokens.len();
    statistics.work = session.work() - work;
    statistics.mean_depth = session.depths().and_then(Depths::mean);
    statistics.decode = start.elapsed().saturating_sub(statistics.time_to_first_token);
    Ok(Generation { tokens, reason, statistics })
}
