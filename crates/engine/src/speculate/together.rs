//! What is to draft, and how much: what promises a token soonest.

use super::adaptive::Adaptive;
use super::drafter::Drafter;
use super::drafts::{Company, Drafts};
use super::plan::Plan;
use super::state::{LONGEST, State};

/// A draft must promise a token in this share of a plain token's time.
const WORTH_IT: f64 = 0.97;
/// To replace what drafts, another must promise this share of its time: estimates are noisy.
const STAYS: f64 = 0.98;

/// The plan of a text that is alone in a step and can take `space` tokens; of one that has just been beside
/// others, to draft nothing.
pub(crate) fn plan_alone(adaptive: &mut Adaptive, space: usize) -> Plan {
    let state = adaptive.known();
    if state.waits() {
        return Plan::plain(state.depth);
    }
    plan_group(&mut [(space, state)], Company::ALONE)[0]
}

/// The plans of texts of one model, head and depth, each with the tokens that it can take.
pub(super) fn plan_group(texts: &mut [(usize, &mut State)], company: Company) -> Vec<Plan> {
    let Some((_, first)) = texts.first() else { return Vec::new() };
    let (depth, drafting) = (first.depth, first.drafting);
    let costs = first.costs.table(company.others + company.texts * (LONGEST + 1));
    let rows = company.rows();
    let plain = (costs.layers(depth, rows) + costs.head(rows)) / rows as f64;
    let (mut best, mut chosen) = (plain, None);
    for drafter in first.chances.drafters().collect::<Vec<_>>() {
        let affordable = |(space, state): &(usize, &mut State)| {
            state.affordable(drafter, (*space).min(LONGEST), company.spread())
        };
        let longest: Vec<usize> = texts.iter().map(affordable).collect();
        let chances: Vec<f64> = texts.iter().map(|(_, state)| state.chances.of(drafter)).collect();
        let drafts = Drafts { drafter, chances: &chances, longest: &longest };
        let (length, pace) = drafts.soonest(&costs, depth, company);
        let stays = if drafter == drafting { STAYS } else { 1.0 };
        if length > 0 && stays * pace < best.min(WORTH_IT * plain) {
            (best, chosen) = (stays * pace, Some((drafter, longest)));
        }
    }
    let mut plans = Vec::with_capacity(texts.len());
    for (index, (_, state)) in texts.iter_mut().enumerate() {
        let (drafter, num_speculations) = match &chosen {
            Some((drafter, longest)) if longest[index] > 0 => (*drafter, longest[index]),
            _ => (Drafter::own(depth), 0),
        };
        state.company = company;
        state.drafting = chosen.as_ref().map_or(Drafter::own(depth), |(drafter, _)| *drafter);
        state.pace = best;
        plans.push(Plan { drafter, num_speculations, probe: state.probe(&costs, drafter, best) });
    }
    plans
}
