//! Finds the threshold of a confidence exit for a given agreement with the full model.
//!
//! The windows of the text take turns: every second window chooses the threshold, the others measure it. In
//! both, tokens are fed one by one with the policy on, so that later tokens attend to the keys and values
//! that exited tokens left in the layers that they skipped. The result is compared with the full model, which
//! reads the same tokens in one pass.

mod reference;

use crate::perplexity::context_of;
use crate::{Error, Result};
use offramp_engine::{ConfidenceExit, Session, Workspace, argmax};
use offramp_model::{Llama, Work};
use offramp_text::TokenStream;
use reference::{Passage, Reference, read};
use serde::Serialize;
use std::sync::Arc;

/// The number of halvings of the list of thresholds: one in 256 is left.
const HALVINGS: u32 = 8;

/// The agreement on the choosing windows must exceed the goal by this many standard errors: the threshold is
/// the best of many, and other text is another sample.
const SURE: f64 = 2.0;

/// The options of a calibration.
#[derive(Clone, Debug)]
pub struct CalibrationOptions {
    /// Exits at which a token may exit early: ascending, below the full depth.
    pub exits: Vec<usize>,
    /// The share of positions at which the most likely token must be the full model's: above 0, at most 1.
    pub agreement: f64,
    /// Tokens of a window; by default 512, or the model's context if that is less.
    pub context: Option<usize>,
    /// Use about this many tokens of the text, in whole windows.
    pub max_tokens: Option<u64>,
}

/// A threshold and its measurements.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    /// Exits at which a token may exit early.
    pub exits: Vec<usize>,
    /// The least difference between the two largest logits at which it exits. Infinite (in JSON null) if no
    /// smaller one reaches the agreement.
    pub threshold: f32,
    /// The agreement that was asked for.
    pub asked: f64,
    /// On the windows that chose the threshold: the agreement minus two standard errors is at least the goal,
    /// or no token exits early.
    pub chosen_by: ConfidenceScore,
    /// On the other windows: quote this one.
    pub held_out: ConfidenceScore,
}

impl Calibration {
    /// The policy for a session at full depth.
    pub fn policy(&self) -> ConfidenceExit {
        ConfidenceExit { exits: self.exits.clone(), threshold: self.threshold }
    }

    /// Whether the agreement on the other windows reaches the goal.
    pub fn is_met(&self) -> bool {
        self.held_out.agreement >= self.asked
    }
}

/// A policy compared with the full model, over some of the text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfidenceScore {
    /// The number of positions compared: all of the windows.
    pub tokens: u64,
    /// The share of them at which the most likely token is the full model's.
    pub agreement: f64,
    /// One standard error of the agreement, for independent positions or for independent windows, whichever
    /// is larger.
    pub standard_error: f64,
    /// The mean number of layers of a token.
    pub mean_depth: f64,
    /// Bytes or operations, whichever is more, as a share of the full model's for the same tokens one by one.
    /// Heads that are read on the way and layers that are filled count.
    pub work: f64,
    /// Where the tokens exited, the full depth last.
    pub left: Vec<ExitShare>,
}

/// The tokens that exited at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ExitShare {
    /// The number of layers.
    pub exit_layer: usize,
    /// Share of all tokens.
    pub share: f64,
}

/// Chooses the least threshold in the text whose agreement with the full model, minus two standard errors,
/// reaches the goal. With a goal of 1 no token exits early: no text is long enough to prove that.
///
/// `progress` gets the tokens done and the total; a threshold that fails early makes it skip ahead.
///
/// # Errors
/// If the stream has another vocabulary, holds less than two windows or cannot be read; if the exits, the
/// agreement or the context are out of range.
pub fn calibrate(
    model: &Arc<Llama>,
    stream: &TokenStream,
    options: &CalibrationOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Calibration> {
    let asked = options.agreement;
    if !(asked > 0.0 && asked <= 1.0) {
        return Err(Error::Agreement(asked));
    }
    let context = context_of(model, stream, options.context)?;
    let available = options.max_tokens.map_or(u64::MAX, |most| most.div_ceil(context as u64));
    let windows = (stream.len().saturating_sub(1) / context as u64).min(available);
    if windows < 2 {
        let tokens = stream.len().min(options.max_tokens.unwrap_or(u64::MAX));
        return Err(Error::TooLittleText { tokens, context });
    }
    let mut session = Session::new(model, context)?;
    session.set_confidence_exit(Some(policy(&options.exits, f32::INFINITY)))?; // checks the exits

    let halves = [windows.div_ceil(2), windows / 2].map(|windows| windows * context as u64);
    let most = halves[0] * u64::from(HALVINGS + 2); // the least threshold, the halvings, the greatest
    let mut tokens_done =
        TokenProgress { done: 0, total: halves[0] + halves[1] + most + halves[1], progress };
    let Reference { passages, thresholds } =
        read(model, stream, windows, context, &options.exits, &mut tokens_done)?;
    let [first, second] = &passages;
    let mut replay =
        Replay { session, workspace: Workspace::new(), exits: &options.exits, tokens_done: &mut tokens_done };
    let found = replay.least(first, asked, &thresholds)?;
    let (threshold, chosen_by) = match found {
        Some(found) => found,
        None => (f32::INFINITY, replay.score(first, f32::INFINITY)?),
    };
    let held_out = replay.score(second, threshold)?;
    tokens_done.all();
    Ok(Calibration { exits: options.exits.clone(), threshold, asked, chosen_by, held_out })
}

fn policy(exits: &[usize], threshold: f32) -> ConfidenceExit {
    ConfidenceExit { exits: exits.to_vec(), threshold }
}

/// The tokens done, and the callback.
struct TokenProgress<'p> {
    done: u64,
    total: u64,
    progress: &'p mut dyn FnMut(u64, u64),
}

impl TokenProgress<'_> {
    fn more(&mut self, tokens: usize) {
        self.done += tokens as u64;
        (self.progress)(self.done, self.total);
    }

    fn all(&mut self) {
        self.done = self.total;
        self.more(0);
    }
}

/// Feeds tokens one by one with the policy on.
struct Replay<'a, 'p> {
    session: Session,
    workspace: Workspace,
    exits: &'a [usize],
    tokens_done: &'a mut TokenProgress<'p>,
}

impl Replay<'_, '_> {
    /// The least of the ascending `thresholds` for which `passages` reach the agreement `asked`, and its
    /// score; `None` if even the greatest does not. The search assumes that agreement rises with the
    /// threshold, which it does except for a little noise.
    fn least(
        &mut self,
        passages: &[Passage],
        asked: f64,
        thresholds: &[f32],
    ) -> Result<Option<(f32, ConfidenceScore)>> {
        let tokens = passages.iter().map(|passage| passage.tokens.len()).sum();
        if 1.0 - SURE * standard_error(&vec![0; passages.len()], tokens) < asked {
            return Ok(None); // the text is too short to prove this agreement
        }
        let (mut from, mut found) = (0, thresholds.len()); // the answer is in this range, or its end
        let mut best = None;
        // Tries the least first: if every token may exit at the first exit, there is nothing to search.
        let mut next = 0;
        for _ in 0..=HALVINGS {
            if from >= found {
                break;
            }
            let threshold = thresholds[next];
            let score = self.score_up_to(passages, threshold, 1.0 - asked)?;
            match score.filter(|score| score.agreement - SURE * score.standard_error >= asked) {
                Some(score) => (best, found) = (Some((threshold, score)), next),
                None => from = next + 1,
            }
            next = from + (found - from) / 2;
        }
        Ok(best)
    }

    fn score(&mut self, passages: &[Passage], threshold: f32) -> Result<ConfidenceScore> {
        let score = self.score_up_to(passages, threshold, 1.0)?;
        Ok(score.expect("not more than all positions can differ"))
    }

    /// The score of a threshold; `None` as soon as more than the share `differing` of the positions differs.
    fn score_up_to(
        &mut self,
        passages: &[Passage],
        threshold: f32,
        differing: f64,
    ) -> Result<Option<ConfidenceScore>> {
        self.session.set_confidence_exit(Some(policy(self.exits, threshold)))?;
        let tokens: usize = passages.iter().map(|passage| passage.tokens.len()).sum();
        let (before, mut missed) = (self.workspace.work(), Vec::with_capacity(passages.len()));
        for passage in passages {
            missed.push(self.missed(passage)?);
            self.tokens_done.more(passage.tokens.len());
            if missed.iter().sum::<usize>() as f64 > differing * tokens as f64 {
                return Ok(None);
            }
        }
        let depths = self.session.depths().expect("a confidence exit is set");
        let share =
            |&(exit_layer, left): &(usize, u64)| ExitShare { exit_layer, share: left as f64 / tokens as f64 };
        Ok(Some(ConfidenceScore {
            tokens: tokens as u64,
            agreement: 1.0 - missed.iter().sum::<usize>() as f64 / tokens as f64,
            standard_error: standard_error(&missed, tokens),
            mean_depth: depths.mean().expect("windows hold tokens"),
            work: (self.workspace.work() - before).share(&plain_work(self.session.model(), passages)),
            left: depths.counts().iter().map(share).collect(),
        }))
    }

    /// The number of positions at which the policy's choice differs from the full model's.
    fn missed(&mut self, passage: &Passage) -> Result<usize> {
        self.session.truncate(0);
        let mut missed = 0;
        for (&token, &choice) in passage.tokens.iter().zip(&passage.choices) {
            missed += usize::from(argmax(self.session.feed(&[token], &mut self.workspace)?) != choice);
        }
        Ok(missed)
    }
}

/// The work of the full model for the same tokens, one by one.
fn plain_work(model: &Llama, passages: &[Passage]) -> Work {
    let mut work = Work::default();
    for before in passages.iter().flat_map(|passage| 0..passage.tokens.len()) {
        work += model.token_work(model.config().num_hidden_layers, before);
    }
    work
}

/// One standard error of the share of differing tokens, over windows of equal size. Half a difference is
/// added to either side: a text without a difference does not prove that there is none. If differences are
/// concentrated in a few windows, the spread of the windows is larger and counts instead.
fn standard_error(missed: &[usize], tokens: usize) -> f64 {
    let (tokens, windows) = (tokens as f64, missed.len() as f64);
    let all: f64 = missed.iter().map(|&missed| missed as f64).sum();
    let share = (all + 0.5) / (tokens + 1.0);
    let of_positions = (share * (1.0 - share) / tokens).sqrt();
    let squares: f64 = missed.iter().map(|&missed| (missed as f64 - all / windows).powi(2)).sum();
    let of_windows = (squares * windows / (windows - 1.0).max(1.0)).sqrt() / tokens;
    of_positions.max(of_windows)
}

#[cfg(test)]
mod tests;
