//! One step of any number of texts: each brings a piece of its prompt or its newest token, some draft, and
//! all go through the layers together.
//!
//! A text's plan says how: plain decoding is a draft of no tokens, and a token that may leave at a confidence
//! exit looks at the head on its way up. What a text computes does not depend on the others
//! (`offramp_model`'s first promise), so that its tokens are the same in any company.

mod apart;
mod draft;
mod plan;
pub(crate) mod turn;
mod verify;

use crate::Result;
use crate::climb::{Climber, climb};
use crate::round::Round;
use crate::speculate::Plan;
use crate::workspace::Workspace;
use offramp_model::{Llama, Work};
use std::sync::Arc;
use turn::{Text, Turn};

/// Takes a step of every text that has not ended. At most about `budget` rows go through the layers: prompts
/// wait for it in pieces, texts that decode do not. What fails for one text alone is noted in its progress.
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
        let most = progress.prompt_logprobs().map_or(left, |_| left.min(verify::ROWS));
        let piece = progress.unfed().len().min(most);
        let read = match (progress.unfed().len(), progress.newest()) {
            (0, Some(newest)) => session.begin(&[newest], 1, true, workspace).map(|()| 1),
            (_, _) if piece == 0 => continue, // there is no budget left for its prompt
            (all, _) => {
                left -= piece;
                let read = match progress.prompt_logprobs() {
                    Some(_) => piece,
                    None => usize::from(piece == all),
                };
                let tokens = progress.unfed()[..piece].to_vec();
                // Of a prompt, no token leaves early but one that is all of it.
                session.begin(&tokens, read, progress.is_one_token(), workspace).map(|()| {
                    progress.fed(piece);
                    read
                })
            }
        };
        match read {
            Err(error) => progress.fail(session, error),
            Ok(read) => turns.push(Turn {
                chooses: progress.unfed().is_empty(),
                plan: Plan::plain(session.exit_layer()),
                session,
                speculation,
                progress,
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
    plan::plan(turns);
    apart::draft(model, turns, workspace)?;
    draft::draft(model, turns, workspace)?;
    draft::probe(model, turns, workspace)?;
    let mut climbers: Vec<Climber<'_>> = turns.iter_mut().map(Turn::climber_to_the_end).collect();
    climb(model, &mut climbers, workspace)?;
    drop(climbers);
    let rounds = verify::verify(model, turns, workspace);
    let tokens = |(turn, round): (&Turn<'_>, &Result<Round>)| match round {
        Ok(round) if turn.adaptive => round.tokens.len(),
        _ => 0,
    };
    let came = turns.iter().zip(&rounds).map(tokens).sum();
    for (turn, round) in turns.iter_mut().zip(rounds) {
        match round {
            Ok(round) => turn.settle(&round, came, workspace),
            Err(error) => {
                turn.session.abort();
                turn.progress.fail(turn.session, error);
            }
        }
    }
    Ok(())
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
