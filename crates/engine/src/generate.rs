//! Prompt in, tokens out.

use crate::progress::Progress;
use crate::sampler::{Sampler, SamplingOptions};
use crate::session::Session;
use crate::speculate::Speculation;
use crate::step::{Text, step};
use crate::workspace::Workspace;
use crate::{Error, Result};
use offramp_model::Work;
use std::ops::ControlFlow;
use std::time::Duration;

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
    /// Its reader stopped it.
    Stopped,
}

/// A token that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// Its id.
    pub id: u32,
    /// How it came into the text.
    pub origin: Origin,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Completion {
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

/// Whether a [`Generation`] can begin, before anything is computed.
///
/// # Errors
/// If the prompt is empty, does not fit or holds an unknown token, an option is out of range, no token may be chosen,
/// the draft head is another model's, or there are both drafts and a confidence exit.
pub fn check(
    session: &Session,
    prompt: &[u32],
    options: &GenerateOptions,
    speculation: &Speculation,
) -> Result<()> {
    Sampler::new(options.sampling)?;
    if prompt.is_empty() {
        return Err(Error::NoTokens);
    }
    let tokens = session.tokens().len() + prompt.len();
    let context = session.capacity().min(session.model().config().prompt_context());
    if tokens > context {
        return Err(Error::ContextFull { tokens, context });
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

/// A text that is asked for its next step: what a command, a server and another language drive alike.
///
/// The first step feeds the prompt and brings the first token; each step after it brings one token, or several where
/// drafts are accepted. The text is the same whatever `speculation` does. With a confidence exit set, tokens of the
/// prompt do not leave early (a prompt of a single token may) and the others may; nothing can be drafted then.
#[derive(Debug)]
pub struct Generation {
    pub(crate) session: Session,
    pub(crate) speculation: Speculation,
    pub(crate) progress: Progress,
}

impl Generation {
    /// A text that continues `session` with `prompt`; nothing is computed yet.
    ///
    /// # Errors
    /// As [`check`], which leaves the session with its owner.
    pub fn new(
        session: Session,
        prompt: &[u32],
        options: &GenerateOptions,
        speculation: Speculation,
    ) -> Result<Self> {
        let progress = Progress::new(&session, prompt, options, &speculation)?;
        Ok(Self { session, speculation, progress })
    }

    /// Takes the next step and returns the tokens that came; none once the text has ended.
    ///
    /// # Errors
    /// If logits are not finite, or there is no memory; tokens that came before are part of the text. The session then
    /// holds what it held before the prompt.
    pub fn step(&mut self, workspace: &mut Workspace) -> Result<&[NewToken]> {
        let Self { session, speculation, progress } = self;
        step(&mut [Text { session, speculation, progress }], usize::MAX, workspace)?;
        self.progress.failure().map_or(Ok(()), Err)?;
        Ok(self.progress.came())
    }

    /// Ends the text after the first `heard` tokens of the last step.
    pub fn stop(&mut self, heard: usize) {
        self.progress.stop(&mut self.session, heard);
    }

    /// Why the text has ended, once it has.
    pub fn finished(&self) -> Option<StopReason> {
        self.progress.reason()
    }

    /// The new tokens so far, without prompt and stop token.
    pub fn tokens(&self) -> &[u32] {
        self.progress.tokens()
    }

    /// The session. Unless a stop token came, the last of the new tokens is not in it: nothing was to be predicted from
    /// it. Who goes on with the text feeds it first.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What came of it, with the session and what the speculation learnt, for the next text.
    pub fn into_parts(self) -> (Completion, Session, Speculation) {
        (self.progress.completion(), self.session, self.speculation)
    }
}

/// As a [`Generation`] over a session that stays with its owner, handing each token to `on_token` as it comes.
///
/// # Errors
/// As [`check`] and [`Generation::step`]. The session holds what it held before, in any case.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    speculation: &mut Speculation,
    workspace: &mut Workspace,
    on_token: &mut dyn FnMut(NewToken) -> ControlFlow<()>,
) -> Result<Completion> {
    let mut progress = Progress::new(session, prompt, options, speculation)?;
    while !progress.is_over() {
        step(&mut [Text { session, speculation, progress: &mut progress }], usize::MAX, workspace)?;
        progress.failure().map_or(Ok(()), Err)?;
        let heard = progress.came().iter().position(|&token| on_token(token).is_break());
        if let Some(index) = heard {
            progress.stop(session, index + 1);
        }
    }
    Ok(progress.completion())
}
