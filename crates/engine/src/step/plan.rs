//! What each text of a step is to draft.

use super::turn::Turn;
use crate::speculate::{Copies, Drafter, Plan, Policy, Speculation, plan_alone};

/// Plans a step: fixed drafts as far as there is space for them, and those of the adaptive policy for a text
/// that is alone. Beside others it drafts nothing: that lost time where it was measured (docs/many-texts.md).
pub(crate) fn plan(turns: &mut [Turn<'_>]) {
    let decoding = turns.iter().filter(|turn| turn.progress.newest().is_some()).count();
    for turn in turns.iter_mut().filter(|turn| turn.may_draft()) {
        let space = turn.progress.space_for_drafts(turn.session);
        let Speculation { policy, head, layers } = &mut *turn.speculation;
        match policy {
            Policy::Off => (),
            Policy::Fixed(draft) => {
                let num_speculations = draft.num_speculations.min(space);
                let apart = layers.is_some();
                let drafter = Drafter { exit_layer: draft.exit_layer, apart };
                turn.plan = Plan { drafter, num_speculations, probe: None };
                turn.drafts = num_speculations > 0;
            }
            Policy::Auto(adaptive) if decoding > 1 => adaptive.is_beside_others(),
            Policy::Auto(adaptive) => {
                let (model, depth) = (turn.session.model(), turn.session.exit_layer());
                let copies = Copies { head: head.as_ref(), layers: layers.as_ref() };
                adaptive.know(model, copies, depth);
                turn.adaptive = true;
                turn.plan = plan_alone(adaptive, space);
                turn.drafts = turn.plan.num_speculations > 0 || turn.plan.probe.is_some();
            }
        }
    }
}
