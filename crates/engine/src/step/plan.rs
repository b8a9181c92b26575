//! What each text of a step is to draft.

use super::turn::Turn;
use crate::speculate::{Plan, Policy, plan_alone};

/// Plans a step: fixed drafts as far as there is space for them, and those of the adaptive policy for a text
/// that is alone. Beside others it drafts nothing: that lost time where it was measured (docs/many-texts.md).
pub(crate) fn plan(turns: &mut [Turn<'_>]) {
    let decoding = turns.iter().filter(|turn| turn.progress.newest().is_some()).count();
    for turn in turns.iter_mut().filter(|turn| turn.may_draft()) {
        let space = turn.progress.space_for_drafts(turn.session);
        match &mut turn.speculation.policy {
            Policy::Off => (),
            Policy::Fixed(draft) => {
                let num_speculations = draft.num_speculations.min(space);
                let (exit_layer, apart) = (draft.exit_layer, turn.speculation.layers.is_some());
                turn.plan = Plan { exit_layer, num_speculations, apart, probe: None };
                turn.drafts = num_speculations > 0;
            }
            Policy::Auto(adaptive) if decoding > 1 => adaptive.is_beside_others(),
            Policy::Auto(adaptive) => {
                let (model, depth) = (turn.session.model(), turn.session.exit_layer());
                adaptive.know(model, turn.speculation.head.as_ref(), depth);
                turn.adaptive = true;
                turn.plan = plan_alone(adaptive, space);
                turn.drafts = turn.plan.num_speculations > 0 || turn.plan.probe.is_some();
            }
        }
    }
}
