//! Plans for all texts of a step together: what a draft costs depends on who shares it.

use super::adaptive::Adaptive;
use super::drafts::{Company, Drafts};
use super::plan::Plan;
use super::state::{LONGEST, State, Subject};

/// A draft must promise a token in this share of a plain token's time.
const WORTH_IT: f64 = 0.97;
/// To replace the exit that drafts, another must promise this share of its time: estimates are noisy.
const STAYS: f64 = 0.98;

/// Rows of a step beside which texts draft. Where more share a step, drafting together lost time on the
/// machine that was measured (docs/many-texts.md), so that texts decode plainly there.
const ROWS_THAT_DRAFT: usize = 1;

/// A text that asks for a plan, and how many tokens it can take.
pub(crate) struct Asking<'a> {
    pub(crate) adaptive: &'a mut Adaptive,
    pub(crate) space: usize,
}

/// Plans for all texts of a step that ask, beside `others` that have a row each: what a draft costs depends
/// on who shares it, so that texts of one model, head and depth get theirs together.
pub(crate) fn plan_together(asking: &mut [&mut Asking<'_>], others: usize) -> Vec<Plan> {
    let mut plans = vec![Plan::plain(0); asking.len()];
    let subjects: Vec<Subject> = asking.iter_mut().map(|one| one.adaptive.known().subject).collect();
    let mut left: Vec<usize> = (0..asking.len()).collect();
    while let Some(&first) = left.first() {
        let (group, rest): (Vec<usize>, Vec<usize>) =
            left.iter().partition(|&&index| subjects[index] == subjects[first]);
        let depth = subjects[first].depth;
        let company = Company { texts: group.len(), others: others + asking.len() - group.len() };
        left = rest;
        if company.rows() > ROWS_THAT_DRAFT {
            group.iter().for_each(|&index| plans[index] = Plan::plain(depth));
            continue;
        }
        let members = asking.iter_mut().enumerate().filter(|(index, _)| group.contains(index));
        let mut members: Vec<_> =
            members.map(|(_, one)| (one.space, one.adaptive.known())).collect::<Vec<(usize, &mut State)>>();
        for (index, plan) in group.iter().zip(plan_group(&mut members, company)) {
            plans[*index] = plan;
        }
    }
    plans
}

/// The plans of texts of one model, head and depth, each with the tokens that it can take.
pub(super) fn plan_group(texts: &mut [(usize, &mut State)], company: Company) -> Vec<Plan> {
    share_costs(texts);
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
        plans.push(Plan { exit_layer, num_speculations, probe: state.probe(&costs, exit_layer, best) });
    }
    plans
}

/// All texts of one model learn from the same calls: who came last takes over what the others know.
fn share_costs(texts: &mut [(usize, &mut State)]) {
    let known = texts.iter().map(|(_, state)| &state.costs);
    let Some(best) = known.max_by(|a, b| a.samples().total_cmp(&b.samples())).cloned() else { return };
    for (_, state) in texts.iter_mut().filter(|(_, state)| state.costs.samples() < best.samples()) {
        state.costs = best.clone();
    }
}
