//! The head says what the full model chooses at every row that is read, and drafts count as far as they
//! agree.

use super::turn::Turn;
use crate::Result;
use crate::logprobs::Logprobs;
use crate::round::Round;
use crate::workspace::{Call, CallTime, Workspace};
use offramp_kernels::{pool, team};
use offramp_model::Llama;
use std::time::Instant;

/// Rows of one call of the head: their logits are a few megabytes.
pub(super) const ROWS: usize = 64;

/// What comes of every turn.
pub(super) fn verify(model: &Llama, turns: &mut [Turn<'_>], workspace: &mut Workspace) -> Vec<Result<Round>> {
    let mut rounds: Vec<Result<Round>> = turns.iter().map(|_| Ok(Round::default())).collect();
    let mut first = 0;
    while first < turns.len() {
        let (mut end, mut rows) = (first, 0);
        while end < turns.len() && (end == first || rows + turns[end].rows_of_head() <= ROWS) {
            rows += turns[end].rows_of_head();
            end += 1;
        }
        verify_some(model, &mut turns[first..end], &mut rounds[first..end], workspace);
        first = end;
    }
    rounds
}

fn verify_some(
    model: &Llama,
    turns: &mut [Turn<'_>],
    rounds: &mut [Result<Round>],
    workspace: &mut Workspace,
) {
    let start = Instant::now();
    let Workspace { scratch, rows, logits, times } = workspace;
    rows.clear();
    for turn in turns.iter() {
        let (states, read) = (turn.session.in_flight(), turn.rows_of_head());
        rows.append(states, states.tokens() - read..states.tokens());
    }
    let all = rows.tokens();
    if all > 0 {
        model.head(rows, 0..all, logits, scratch);
    } else {
        logits.clear();
    }
    let vocab = model.config().vocab_size;
    let mut rest = &logits[..];
    let mut jobs = Vec::with_capacity(turns.len());
    for (turn, round) in turns.iter_mut().zip(rounds) {
        let (own, others) = rest.split_at(turn.rows_of_head() * vocab);
        rest = others;
        jobs.push((turn, own, round));
    }
    let threads = if jobs.len() > 1 { pool::threads() } else { 1 };
    team::share(threads, jobs.into_iter(), |(turn, logits, round)| *round = turn.compare(logits, vocab));
    if all > 0 {
        times.push(CallTime { call: Call::Head, rows: all, seconds: start.elapsed().as_secs_f64() });
    }
}

impl Turn<'_> {
    /// Rows that the head has yet to read: a token that left early has its logits.
    fn rows_of_head(&self) -> usize {
        match self.session.left() {
            Some(_) => 0,
            None if self.drafts => self.session.in_flight().tokens(),
            None => self.read,
        }
    }

    /// Compares the draft with the full model's choices.
    fn compare(&mut self, logits: &[f32], vocab: usize) -> Result<Round> {
        let mut round = Round { drafted: self.draft.len(), ..Round::default() };
        let logits = self.score_prompt(logits, vocab);
        if !self.chooses || !self.may_choose() {
            return Ok(round);
        }
        let asked = self.progress.logprobs();
        let mut buffer = Vec::new();
        let mut note =
            |logits: &[f32], token| asked.map(|top| Logprobs::of(logits, Some(token), top, &mut buffer));
        if let Some(logits) = self.session.left() {
            let token = self.progress.chooser.choose(logits, self.session.tokens())?.token;
            round.tokens.push(token);
            round.logprobs.extend(note(logits, token));
            return Ok(round);
        }
        let first = self.session.tokens().len() + 1 - logits.len() / vocab;
        for (row, logits) in logits.chunks_exact(vocab).enumerate() {
            let token = match self.progress.chooser.choose(logits, &self.session.tokens()[..first + row]) {
                Ok(choice) => choice.token,
                Err(_) if row > 0 => break, // plain decoding says what came before, and so does this
                Err(error) => return Err(error),
            };
            round.tokens.push(token);
            round.logprobs.extend(note(logits, token));
            if self.draft.get(row).is_none_or(|choice| choice.token != token) {
                break;
            }
            round.accepted += 1;
        }
        Ok(round)
    }

    /// Notes how likely the prompt's tokens are, where that was asked for; the logits of the last row, if a
    /// token is to be chosen from them.
    fn score_prompt<'l>(&mut self, logits: &'l [f32], vocab: usize) -> &'l [f32] {
        let Some(top) = self.progress.prompt_logprobs().filter(|_| self.progress.newest().is_none()) else {
            return logits;
        };
        let mut labels = self.session.tokens()[self.session.tokens().len() + 1 - self.read..].to_vec();
        labels.extend(self.progress.unfed().first());
        let mut buffer = Vec::new();
        let scored = logits.chunks_exact(vocab).zip(&labels);
        let scored =
            scored.map(|(logits, &label)| Logprobs::of(logits, Some(label), top, &mut buffer)).collect();
        self.progress.scored(scored);
        &logits[logits.len().min(self.read.saturating_sub(1) * vocab)..]
    }

    /// Whether a token is to be chosen: after a prompt, none may be wanted.
    fn may_choose(&mut self) -> bool {
        self.progress.newest().is_some() || self.progress.prompt_is_done(self.session)
    }
}
