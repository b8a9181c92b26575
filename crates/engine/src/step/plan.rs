//! What each text of a step is to draft.

use super::turn::Turn;
use crate::speculate::{Asking, Plan, Policy, plan_together};

/// Plans a step: fixed drafts as far as there is space for them, and those of the adaptive policy together,
/// since what a draft costs depends on who shares it.
pub(crate) fn plan(turns: &mut [Turn<'_>]) {
    let others = turns.iter().filter(|turn| !turn.may_draft() || !turn.speculation.is_auto());
    let others = others.filter(|turn| turn.progress.newest().is_some()).count();
    let mut asking = Vec::new();
    for turn in turns.iter_mut().filter(|turn| turn.may_draft()) {
        let space = turn.progress.space_for_drafts(turn.session);
        match &mut turn.speculation.policy {
            Policy::Off => (),
            Policy::Fixed(draft) => {
                let num_speculations = draft.num_speculations.min(space);
                turn.plan = Plan { exit_layer: draft.exit_layer, num_speculations, probe: None };
                turn.drafts = num_speculations > 0;
            }
            Policy::Auto(adaptive) => {
                let (model, depth) = (turn.session.model(), turn.session.exit_layer());
                adaptive.know(model, turn.speculation.head.as_ref(), depth);
                turn.adaptive = true;
                asking.push((Asking { adaptive, space }, &mut turn.plan, &mut turn.drafts));
            }
        }
    }
    let plans = {
        let mut policies: Vec<_> = asking.iter_mut().map(|(asking, _, _)| asking).collect();
        plan_together(&mut policies, others)
    };
    for ((_, plan, drafts), found) in asking.into_iter().zip(plans) {
        *plan = found;
        *drafts = found.num_speculations > 0 || found.probe.is_some();
    }
}
