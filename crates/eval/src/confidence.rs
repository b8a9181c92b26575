//! The threshold at which tokens may leave at a confidence exit, for an agreement with the full model that is asked for.
//!
//! Every second window of the text is there to choose the threshold by, the others to say what it is worth where it was
//! not chosen. In both, tokens are fed one by one with the policy in force: what a token that left has put into the
//! layers that it skipped is what the tokens after it attend to. What they say is compared with the full model, which has
//! read the same tokens in one pass.

mod reference;

use crate::perplexity::context_of;
use crate::{Error, Result};
use offramp_engine::{ConfidenceExit, Session, Workspace, argmax};
use offramp_model::{Llama, Work};
use offramp_text::TokenStream;
use reference::{Passage, Reference, read};
use serde::Serialize;
use std::sync::Arc;

/// How often the thresholds in question are halved: what is left of them is one in 256.
const HALVINGS: u32 = 8;

/// Standard errors by which the agreement must exceed what was asked for, where it is chosen: the threshold is the best of
/// many, and other text is another sample.
const SURE: f64 = 2.0;

/// What to calibrate.
#[derive(Clone, Debug)]
pub struct CalibrationOptions {
    /// Layers after which a token may leave: ascending, below the full depth.
    pub exits: Vec<usize>,
    /// The share of positions, above 0 and at most 1, at which the most likely token is to be the full model's.
    pub agreement: f64,
    /// Tokens of a window; by default 512 or the model's context, whichever is less.
    pub context: Option<usize>,
    /// Use about so many tokens of the text (whole windows).
    pub max_tokens: Option<u64>,
}

/// A threshold, and what it is worth.
#[derive(Clone, Debug, Serialize)]
pub struct Calibration {
    /// Layers after which a token may leave.
    pub exits: Vec<usize>,
    /// The lead, in logits, with which it does; infinite (in JSON null) if nothing less has the agreement.
    pub threshold: f32,
    /// The agreement that was asked for.
    pub asked: f64,
    /// On the windows by which the threshold was chosen: the agreement less two standard errors is at least what was
    /// asked for, or nothing leaves.
    pub chosen_by: ConfidenceScore,
    /// On the other windows: this is the number to quote.
    pub held_out: ConfidenceScore,
}

impl Calibration {
    /// The policy for a session at full depth.
    pub fn policy(&self) -> ConfidenceExit {
        ConfidenceExit { exits: self.exits.clone(), threshold: self.threshold }
    }

    /// Whether the windows by which nothing was chosen agree as often as was asked for.
    pub fn is_met(&self) -> bool {
        self.held_out.agreement >= self.asked
    }
}

/// A policy's word beside the full model's, over some of the text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConfidenceScore {
    /// Positions compared: all of the windows.
    pub tokens: u64,
    /// Share of them at which the most likely token is the full model's.
    pub agreement: f64,
    /// One standard error of the agreement: that of independent positions, or that of independent windows if it is more.
    pub standard_error: f64,
    /// Layers that a token took in the mean.
    pub mean_depth: f64,
    /// Bytes or operations, whichever is more, as a share of what the full model takes for the same tokens one by one:
    /// heads read on the way and layers filled are among them.
    pub work: f64,
    /// Where the tokens left, the full depth last.
    pub left: Vec<ExitShare>,
}

/// The tokens that left at one depth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ExitShare {
    /// Layers run.
    pub exit_layer: usize,
    /// Share of all tokens.
    pub share: f64,
}

/// Chooses the least threshold, of those that the text suggests, whose agreement with the full model less two standard
/// errors is at least what was asked for. An agreement of 1 lets nothing leave: no text is long enough to be certain of it.
///
/// `progress` hears tokens run and to run; thresholds that turn out bad early make it skip.
///
/// # Errors
/// If the stream belongs to another vocabulary, holds less than two windows or cannot be read; if the exits, the agreement
/// or the context are out of range.
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
    session.set_confidence_exit(Some(policy(&options.exits, f32::INFINITY)))?; // the exits are good

    let halves = [windows.div_ceil(2), windows / 2].map(|windows| windows * context as u64);
    let most = halves[0] * u64::from(HALVINGS + 2); // the least threshold, the halvings, the greatest
    let mut heard = Heard { done: 0, total: halves[0] + halves[1] + most + halves[1], progress };
    let Reference { passages, thresholds } =
        read(model, stream, (windows, context), &options.exits, &mut heard)?;
    let [first, second] = &passages;
    let mut replay =
        Replay { session, workspace: Workspace::new(), exits: &options.exits, heard: &mut heard };
    let found = replay.least(first, asked, &thresholds)?;
    let (threshold, chosen_by) = match found {
        Some(found) => found,
        None => (f32::INFINITY, replay.score(first, f32::INFINITY)?),
    };
    let held_out = replay.score(second, threshold)?;
    heard.all();
    Ok(Calibration { exits: options.exits.clone(), threshold, asked, chosen_by, held_out })
}

fn policy(exits: &[usize], threshold: f32) -> ConfidenceExit {
    ConfidenceExit { exits: exits.to_vec(), threshold }
}

/// Tokens run, and who wants to know.
struct Heard<'p> {
    done: u64,
    total: u64,
    progress: &'p mut dyn FnMut(u64, u64),
}

impl Heard<'_> {
    fn more(&mut self, tokens: usize) {
        self.done += tokens as u64;
        (self.progress)(self.done, self.total);
    }

    fn all(&mut self) {
        self.done = self.total;
        self.more(0);
    }
}

/// Tokens fed one by one with a policy in force.
struct Replay<'a, 'p> {
    session: Session,
    workspace: Workspace,
    exits: &'a [usize],
    heard: &'a mut Heard<'p>,
}

impl Replay<'_, '_> {
    /// The least of the ascending `thresholds` with which `passages` agree as often as `asked` for, and the score; none if
    /// the greatest does not. Agreement is taken to rise with the threshold, as it does but for a little noise.
    fn least(
        &mut self,
        passages: &[Passage],
        asked: f64,
        thresholds: &[f32],
    ) -> Result<Option<(f32, ConfidenceScore)>> {
        let tokens = passages.iter().map(|passage| passage.tokens.len()).sum();
        if 1.0 - SURE * standard_error(&vec![0; passages.len()], tokens) < asked {
            return Ok(None); // so little text proves no such agreement
        }
        let (mut from, mut found) = (0, thresholds.len()); // the answer is one of these, or the end
        let mut best = None;
        // The least first: where every token may leave at the first exit, nothing is to be searched.
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

    /// The score of a threshold; none as soon as more than a share of `differing` positions differ.
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
            self.heard.more(passage.tokens.len());
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

    /// Positions of a passage at which the policy says something else than the full model.
    fn missed(&mut self, passage: &Passage) -> Result<usize> {
        self.session.truncate(0);
        let mut missed = 0;
        for (&token, &choice) in passage.tokens.iter().zip(&passage.choices) {
            missed += usize::from(argmax(self.session.feed(&[token], &mut self.workspace)?) != choice);
        }
        Ok(missed)
    }
}

/// What the full model takes for the same tokens, one by one.
fn plain_work(model: &Llama, passages: &[Passage]) -> Work {
    let mut work = Work::default();
    for before in passages.iter().flat_map(|passage| 0..passage.tokens.len()) {
        work += model.token_work(model.config().num_hidden_layers, before);
    }
    work
}

/// One standard error of the share of `tokens` that were missed, so many in each of some equal windows. Half a miss is
/// added to either side: a text without any is no proof that there are none. Where misses crowd in a few windows they
/// tell less, so the windows' own spread counts if it is more.
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
