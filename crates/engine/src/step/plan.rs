//! What each text of a step is to draft.

use super::turn::Turn;
use crate::speculate::{Adaptive, Copies, Drafter, Plan, Policy, Speculation, Subject, plan_together};

/// Plans a step: fixed drafts as far as there is space for them, and those of the adaptive policy for all of
/// its texts together.
pub(crate) fn plan(turns: &mut [Turn<'_>]) {
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
            Policy::Auto(adaptive) => {
                let (model, depth) = (turn.session.model(), turn.session.exit_layer());
                let copies = Copies { head: head.as_ref(), layers: layers.as_ref() };
                adaptive.know(model, copies, depth);
                turn.adaptive = true;
            }
        }
    }
    let mut subjects: Vec<Subject> = Vec::new();
    for turn in turns.iter_mut() {
        let subject = adaptive_of(turn).and_then(|adaptive| adaptive.subject());
        subjects.extend(subject.filter(|subject| !subjects.contains(subject)));
    }
    for subject in subjects {
        plan_subject(turns, subject);
    }
}

/// Plans the texts of one subject, beside all other rows of the step.
fn plan_subject(turns: &mut [Turn<'_>], subject: Subject) {
    let rows: usize = turns.iter().map(|turn| turn.session.in_flight().tokens()).sum();
    let mut members = Vec::new();
    let mut texts = Vec::new();
    for (index, turn) in turns.iter_mut().enumerate() {
        let space = turn.adaptive.then(|| turn.progress.space_for_drafts(turn.session));
        let adaptive = adaptive_of(turn).filter(|adaptive| adaptive.subject() == Some(subject));
        let member = space.zip(adaptive);
        members.extend(member.is_some().then_some(index));
        texts.extend(member);
    }
    let plans = plan_together(&mut texts, rows - members.len());
    for (index, plan) in members.into_iter().zip(plans) {
        let turn = &mut turns[index];
        turn.drafts = plan.num_speculations > 0 || plan.probe.is_some();
        turn.plan = plan;
    }
}

/// The adaptive policy of a text that takes part in its plan.
fn adaptive_of<'a>(turn: &'a mut Turn<'_>) -> Option<&'a mut Adaptive> {
    match &mut turn.speculation.policy {
        Policy::Auto(adaptive) if turn.adaptive => Some(adaptive),
        _ => None,
    }
}
