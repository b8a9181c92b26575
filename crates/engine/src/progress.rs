//! How far a generation has come, beside its session.

use crate::chooser::Chooser;
use crate::completion::{Completion, GenerateOptions, NewToken, Statistics, StopReason};
use crate::confidence::Depths;
use crate::logprobs::Logprobs;
use crate::round::Round;
use crate::sampler::Sampler;
use crate::session::Session;
use crate::speculate::Speculation;
use crate::{Error, Result};
use offramp_model::Work;
use std::time::{Duration, Instant};

/// A prompt that is fed, then a text that grows.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) chooser: Chooser,
    prompt: Vec<u32>,
    fed: usize, // tokens of the prompt
    max_new_tokens: usize,
    tokens: Vec<u32>, // new ones
    came: Vec<NewToken>,
    logprobs: Option<usize>,
    prompt_logprobs: Option<usize>,
    scored: Vec<Logprobs>, // of the prompt's tokens from the second on
    newly_scored: usize,   // in the last step
    reason: Option<StopReason>,
    failed: bool,
    failure: Option<Error>,
    before: usize, // tokens that the session held before the prompt
    start: Option<Instant>,
    statistics: Statistics,
}

impl Progress {
    /// # Errors
    /// As [`check`].
    pub(crate) fn new(
        session: &Session,
        prompt: &[u32],
        options: &GenerateOptions,
        speculation: &Speculation,
    ) -> Result<Self> {
        check(session, prompt, options, speculation)?;
        let before = session.tokens().len();
        let cached =
            Statistics { prompt_tokens: prompt.len(), cached_tokens: before, ..Statistics::default() };
        Ok(Self {
            chooser: Chooser::new(options, before + prompt.len())?,
            prompt: prompt.to_vec(),
            fed: 0,
            max_new_tokens: options.max_new_tokens,
            tokens: Vec::new(),
            came: Vec::new(),
            logprobs: options.logprobs,
            prompt_logprobs: options.prompt_logprobs,
            scored: Vec::new(),
            newly_scored: 0,
            reason: None,
            failed: false,
            failure: None,
            before,
            start: None,
            statistics: cached,
        })
    }

    /// Whether nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        self.reason.is_some() || self.failed
    }

    pub(crate) fn reason(&self) -> Option<StopReason> {
        self.reason
    }

    pub(crate) fn failure(&mut self) -> Option<Error> {
        self.failure.take()
    }

    /// Tokens of the prompt that have yet to be fed.
    pub(crate) fn unfed(&self) -> &[u32] {
        &self.prompt[self.fed..]
    }

    /// Whether the prompt is a single token and the session was empty: what a session holds of a longer
    /// prompt does not change what comes of the rest.
    pub(crate) fn is_one_token(&self) -> bool {
        self.prompt.len() == 1 && self.before == 0
    }

    /// How many of the most likely tokens are to be noted beside each new token, if any.
    pub(crate) fn logprobs(&self) -> Option<usize> {
        self.logprobs
    }

    /// The same for tokens of the prompt.
    pub(crate) fn prompt_logprobs(&self) -> Option<usize> {
        self.prompt_logprobs
    }

    /// More of the prompt's tokens have been scored.
    pub(crate) fn scored(&mut self, scores: Vec<Logprobs>) {
        self.newly_scored = scores.len();
        self.scored.extend(scores);
    }

    /// What the last step found of the prompt's tokens.
    pub(crate) fn newly_scored(&self) -> &[Logprobs] {
        &self.scored[self.scored.len() - self.newly_scored..]
    }

    /// The tokens that came in the last step.
    pub(crate) fn came(&self) -> &[NewToken] {
        &self.came
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The newest token, which the session does not hold yet.
    pub(crate) fn newest(&self) -> Option<u32> {
        self.tokens.last().copied()
    }

    /// How many tokens may be drafted beside the one that every step gives: none is computed in vain. The
    /// session holds the newest token.
    pub(crate) fn space_for_drafts(&self, session: &Session) -> usize {
        let wanted = self.max_new_tokens.saturating_sub(self.tokens.len() + 1);
        wanted.min(session.capacity() - session.tokens().len())
    }

    /// A step begins.
    pub(crate) fn begin_step(&mut self) {
        self.came.clear();
        self.newly_scored = 0;
        self.start.get_or_insert_with(Instant::now);
    }

    /// The session has taken so many tokens of the prompt; whether that was the last of them.
    pub(crate) fn fed(&mut self, tokens: usize) -> bool {
        self.fed += tokens;
        self.fed == self.prompt.len()
    }

    /// The prompt's logits are there; whether a token is to be chosen from them.
    pub(crate) fn prompt_is_done(&mut self, session: &mut Session) -> bool {
        self.statistics.prefill = self.elapsed();
        if self.max_new_tokens == 0 {
            self.end(session, StopReason::Length);
        }
        !self.is_over()
    }

    /// What a step brought. The session holds all tokens but the newest.
    pub(crate) fn receive(&mut self, session: &mut Session, round: &Round) {
        if self.tokens.is_empty() {
            self.statistics.time_to_first_token = self.elapsed();
        } else {
            self.statistics.rounds += 1;
            self.statistics.drafted += round.drafted;
            self.statistics.accepted += round.accepted;
            self.statistics.rejected += usize::from(round.accepted < round.drafted);
            self.statistics.drafts += usize::from(round.drafted > 0);
            self.statistics.accepted_at.iter_mut().take(round.accepted).for_each(|rounds| *rounds += 1);
        }
        let depth = session.left_at();
        for (index, &id) in round.tokens.iter().enumerate() {
            self.statistics.decoded_tokens += usize::from(!self.tokens.is_empty());
            if self.chooser.stops_at(id) {
                return self.end(session, StopReason::StopToken);
            }
            self.tokens.push(id);
            let logprobs = round.logprobs.get(index).cloned();
            self.came.push(NewToken { id, origin: round.origin(index), depth, logprobs });
        }
        if self.tokens.len() == self.max_new_tokens {
            self.end(session, StopReason::Length);
        } else if session.tokens().len() == session.capacity() {
            self.end(session, StopReason::ContextFull);
        }
    }

    /// Ends the text after the first `heard` tokens of the last step.
    pub(crate) fn stop(&mut self, session: &mut Session, heard: usize) {
        let unheard = self.came.len().saturating_sub(heard);
        // A stop token counts among the decoded ones, too.
        let stop_token = usize::from(self.reason == Some(StopReason::StopToken));
        let uncounted = (unheard + stop_token).min(self.statistics.decoded_tokens);
        self.statistics.decoded_tokens -= uncounted;
        self.tokens.truncate(self.tokens.len() - unheard);
        self.came.truncate(heard);
        self.end(session, StopReason::Stopped);
    }

    fn end(&mut self, session: &mut Session, reason: StopReason) {
        // The newest token is not in the session, unless a stop token was chosen after it.
        let newest = usize::from(reason != StopReason::StopToken && !self.tokens.is_empty());
        session.truncate(self.before + self.fed + self.tokens.len() - newest);
        self.reason = Some(reason);
        self.statistics.new_tokens = self.tokens.len();
        self.statistics.mean_depth = session.depths().and_then(Depths::mean);
        self.statistics.decode = self.elapsed().saturating_sub(self.statistics.time_to_first_token);
    }

    /// The text cannot go on; the session holds what it held before the prompt.
    pub(crate) fn fail(&mut self, session: &mut Session, error: Error) {
        self.give_up(session);
        self.failure = Some(error);
    }

    /// As [`Progress::fail`], where the error is reported for all texts of a step.
    pub(crate) fn give_up(&mut self, session: &mut Session) {
        session.truncate(self.before);
        self.came.clear();
        self.failed = true;
    }

    /// This text's part of a step's work.
    pub(crate) fn worked(&mut self, work: Work) {
        self.statistics.work += work;
    }

    fn elapsed(&self) -> Duration {
        self.start.map_or(Duration::ZERO, |start| start.elapsed())
    }

    /// What has come so far.
    pub(crate) fn completion(&self) -> Completion {
        let reason = self.reason.unwrap_or(StopReason::Stopped);
        let prompt_logprobs = self.scored.clone();
        Completion { tokens: self.tokens.clone(), reason, prompt_logprobs, statistics: self.statistics }
    }
}

/// Whether a [`Generation`](crate::Generation) can begin, before anything is computed.
///
/// # Errors
/// If the prompt is empty, does not fit or holds an unknown token, an option is out of range, no token may be
/// chosen, the draft head is another model's, or there are both drafts and a confidence exit.
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
    speculation.check_drafts(session.model())?;
    let config = session.model().config();
    prompt.iter().try_for_each(|&token| config.check_token(token))?;
    if speculation.drafts() && session.confidence_exit().is_some() {
        return Err(Error::ConfidenceWithDrafts);
    }
    speculation.draft().map_or(Ok(()), |draft| Ok(config.check_exit_layer(draft.exit_layer)?))
}
