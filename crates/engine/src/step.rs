//! One step of any number of texts: each brings a piece of its prompt or its newest token, some draft, and all go
//! through the layers together.
//!
//! A text's plan says how: plain decoding is a draft of no tokens, and a token that may leave at a confidence exit looks
//! at the head on its way up. What a text computes does not depend on the others (`offramp_model`'s first promise), so
//! that its tokens are the same in any company.

mod draft;
mod verify;

use crate::Result;
use crate::chooser::Choice;
use crate::climb::{Climber, climb};
use crate::progress::{Progress, Round};
use crate::session::Session;
use crate::speculate::{Lesson, Plan, Speculation, plan};
use crate::workspace::Workspace;
use offramp_model::{Llama, Work};
use std::sync::Arc;

/// A text that takes part in a step.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) speculation: &'a mut Speculation,
    pub(crate) progress: &'a mut Progress,
}

/// What a text does in a step.
#[derive(Debug)]
pub(crate) struct Turn<'t> {
    pub(crate) session: &'t mut Session,
    pub(crate) speculation: &'t mut Speculation,
    pub(crate) progress: &'t mut Progress,
    pub(crate) plan: Plan,
    /// Tokens that the first layers chose.
    pub(crate) draft: Vec<Choice>,
    /// The token that the draft's head chose last.
    pub(crate) chosen: Option<Choice>,
    /// One more that was not worth verifying.
    pub(crate) dropped: Option<Choice>,
    /// What the exit that is probed would have chosen.
    pub(crate) probed: Vec<Choice>,
    /// The chance that the whole draft is accepted.
    pub(crate) chance: f64,
    /// Whether the first layers run ahead with this text.
    pub(crate) drafts: bool,
    /// Whether the adaptive policy planned it.
    pub(crate) adaptive: bool,
    /// Rows whose logits are to be read.
    pub(crate) read: usize,
}

/// Takes a step of every text that has not ended. At most about `budget` rows go through the layers: prompts wait for
/// it in pieces, texts that decode do not. What fails for one text alone is noted in its progress.
///
/// # Errors
/// If the memory has no room; then no text has taken the step, and those that tried have failed.
pub(crate) fn step(texts: &mut [Text<'_>], budget: usize, workspace: &mut Workspace) -> Result<()> {
    let Some(first) = texts.first() else { return Ok(()) };
    let model = Arc::clone(first.session.model());
    let before = workspace.work();
    workspace.times.clear();
    let mut turns = begin(texts, budget, workspace);
    if turns.is_empty() {
        return Ok(());
    }
    if let Err(error) = run(&model, &mut turns, workspace) {
        turns.iter_mut().for_each(|turn| turn.progress.give_up(turn.session));
        return Err(error);
    }
    share_work(&mut turns, workspace.work() - before);
    Ok(())
}

/// Puts what every text brings into flight.
fn begin<'t>(texts: &'t mut [Text<'_>], budget: usize, workspace: &mut Workspace) -> Vec<Turn<'t>> {
    let decoding = texts.iter().filter(|text| !text.progress.is_over() && text.progress.unfed().is_empty());
    let mut left = budget.saturating_sub(decoding.count()).max(1);
    let mut turns = Vec::with_capacity(texts.len());
    for text in texts.iter_mut().filter(|text| !text.progress.is_over()) {
        let Text { session, speculation, progress } = text;
        progress.begin_step();
        let piece = progress.unfed().len().min(left);
        let read = match (progress.unfed().len(), progress.newest()) {
            (0, Some(newest)) => session.begin(&[newest], 1, true, workspace).map(|()| 1),
            (_, _) if piece == 0 => continue, // there is no budget left for its prompt
            (all, _) => {
                left -= piece;
                let read = usize::from(piece == all);
                let tokens = progress.unfed()[..piece].to_vec();
                session.begin(&tokens, read, true, workspace).map(|()| {
                    progress.fed(piece);
                    read
                })
            }
        };
        match read {
            Err(error) => progress.fail(session, error),
            Ok(read) => turns.push(Turn {
                plan: Plan::plain(session.exit_layer()),
                session: &mut **session,
                speculation: &mut **speculation,
                progress: &mut **progress,
                draft: Vec::new(),
                chosen: None,
                dropped: None,
                probed: Vec::new(),
                chance: 1.0,
                drafts: false,
                adaptive: false,
                read,
            }),
        }
    }
    turns
}

fn run(model: &Arc<Llama>, turns: &mut [Turn<'_>], workspace: &mut Workspace) -> Result<()> {
    plan(turns);
    draft::draft(model, turns, workspace)?;
    draft::probe(model, turns, workspace)?;
    let mut climbers: Vec<Climber<'_>> = turns.iter_mut().map(Turn::climber_to_the_end).collect();
    climb(model, &mut climbers, workspace)?;
    drop(climbers);
    let rounds = verify::verify(model, turns, workspace);
    for (turn, round) in turns.iter_mut().zip(rounds) {
        match round {
            Ok(round) => turn.settle(&round, workspace),
            Err(error) => {
                turn.session.abort();
                turn.progress.fail(turn.session, error);
            }
        }
    }
    Ok(())
}

impl Turn<'_> {
    /// Whether this text may draft in this step: it has one token in flight, which does not leave early.
    pub(crate) fn may_draft(&self) -> bool {
        self.read == 1
            && self.progress.newest().is_some()
            && self.session.in_flight().tokens() == 1
            && !self.session.is_leaving()
            && self.speculation.drafts()
    }

    fn climber_to_the_end(&mut self) -> Climber<'_> {
        let depth = self.session.exit_layer();
        self.session.climber(depth)
    }

    /// Takes over what the step brought.
    fn settle(&mut self, round: &Round, workspace: &Workspace) {
        self.session.land();
        if self.read == 0 {
            return; // the prompt goes on
        }
        let lesson = Lesson {
            plan: self.plan,
            draft: &self.draft,
            dropped: self.dropped,
            probed: &self.probed,
            round,
            rows: self.session.in_flight().tokens(),
            times: &workspace.times,
        };
        if self.adaptive {
            self.speculation.learn(&lesson);
        }
        if self.progress.newest().is_some() {
            self.session.truncate(self.session.before() + round.tokens.len().max(1));
        }
        self.progress.receive(self.session, round);
    }
}

/// Divides a step's work by the rows that each text had in it.
fn share_work(turns: &mut [Turn<'_>], work: Work) {
    let rows: Vec<u64> = turns.iter().map(|turn| turn.session.in_flight().tokens().max(1) as u64).collect();
    let all: u64 = rows.iter().sum();
    for (turn, rows) in turns.iter_mut().zip(rows) {
        let part = |of: u64| (u128::from(of) * u128::from(rows) / u128::from(all)) as u64;
        turn.progress.worked(Work { bytes: part(work.bytes), operations: part(work.operations) });
    }
}
