//! Layers apart run ahead: a token of each text that drafts with them, then its choice, then the next token.

use super::draft::{States, members, read};
use super::turn::Turn;
use crate::Result;
use crate::climb::climb;
use crate::workspace::{Call, Workspace};
use offramp_model::{DraftLayers, Llama};
use std::sync::Arc;

/// Drafts as planned, and puts the drafts into flight: every layer of the model verifies them.
pub(super) fn draft(model: &Arc<Llama>, turns: &mut [Turn<'_>], workspace: &mut Workspace) -> Result<()> {
    let mut copies: Vec<DraftLayers> = Vec::new();
    for turn in turns.iter_mut().filter(|turn| turn.drafts_apart()) {
        turn.session.begin_draft(turn.plan.drafter.exit_layer, turn.plan.probe);
        let new = turn.speculation.layers().filter(|own| copies.iter().all(|copy| copy.id() != own.id()));
        copies.extend(new.cloned());
    }
    for copy in &copies {
        let drafts_with =
            |turn: &Turn<'_>| turn.speculation.layers().is_some_and(|own| own.id() == copy.id());
        let with = |&index: &usize| turns[index].drafts_apart() && drafts_with(&turns[index]);
        let active: Vec<usize> = (0..turns.len()).filter(with).collect();
        draft_with(copy, model, turns, active, workspace)?;
    }
    for turn in turns.iter_mut().filter(|turn| turn.drafts_apart()) {
        turn.session.end_apart()?;
    }
    Ok(())
}

/// Drafts the texts that share a copy.
fn draft_with(
    copy: &DraftLayers,
    model: &Arc<Llama>,
    turns: &mut [Turn<'_>],
    mut active: Vec<usize>,
    workspace: &mut Workspace,
) -> Result<()> {
    let states: States = |turn| (turn.session.apart_state(), 0..1);
    loop {
        let drafting = active.len();
        active.retain(|&index| turns[index].goes_on(drafting));
        if active.is_empty() {
            return Ok(());
        }
        let first = workspace.times.len();
        let climbers = members(turns, &active).into_iter().map(|turn| turn.session.apart_climber());
        climb(copy.model(), &mut climbers.collect::<Vec<_>>(), workspace)?;
        for time in &mut workspace.times[first..] {
            if let Call::Layers(layers) = time.call {
                time.call = Call::DraftLayers(layers);
            }
        }
        let drafting = active.len();
        let mut asked = members(turns, &active);
        read(model, &mut asked, states, |turn, logits| turn.choose_next(logits), workspace);
        active.retain(|&index| turns[index].takes(drafting));
        for &index in &active {
            let Some(choice) = turns[index].draft.last().copied() else { continue };
            turns[index].session.extend_draft(choice.token)?;
        }
    }
}
