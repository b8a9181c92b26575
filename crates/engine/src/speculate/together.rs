//! Which exit is to draft, and how much: what promises a token soonest.

use super::adaptive::Adaptive;
use super::drafts::{Company, Drafts};
use super::plan::Plan;
use super::state::{LONGEST, State};

/// A draft must promise a token in this share of a plain token's time.
const WORTH_IT: f64 = 0.97;
/// To replace the exit that drafts, another must promise this share of its time: estimates are noisy.
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
    for exit_layer in first.chances.layers().collect::<Vec<_>>() {
        let affordable = |(space, state): &(usize, &mut State)| {
            state.affordable(exit_layer, (*space).min(LONGEST), company.spread())
        };
        let longest: Vec<usize> = texts.iter().map(affordable).collect();
        let chances: Vec<f64> = texts.iter().map(|(_, state)| state.chances.of(exit_layer)).collect();
        let drafts = Drafts { exit_layer, chances: &chances, longest: &longest };
        let (length, pace) = drafts.soonest(&costs, depth, company);
        let stays = if exit_layer == drafting { STAYS } else { 1.0 };
        if length > 0 && stays * pace < best.min(WORTH_IT * plain) {
            (best, chosen) = (stays * pace, Some((exit_layer, longest)));
        }
    }
    let mut plans = Vec::with_capacity(texts.len());
    for (index, (_, state)) in texts.iter_mut().enumerate() {
        let (exit_layer, num_speculations) = match &chosen {
            Some((exit_layer, longest)) if longest[index] > 0 => (*exit_layer, longest[index]),
            _ => (depth, 0),
        };
        state.company = company;
        state.drafting = chosen.as_ref().map_or(depth, |(exit_layer, _)| *exit_layer);
        state.pace = best;
        plans.push(Plan {
            exit_layer,
            num_speculations,
            apart: false,
            probe: state.probe(&costs, exit_layer, best),
        });
    }
    plans
}
