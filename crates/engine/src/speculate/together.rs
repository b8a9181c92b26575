//! What is to draft, and how much: what promises a token soonest.

use super::adaptive::Adaptive;
use super::drafter::Drafter;
use super::drafts::{Company, Drafts};
use super::plan::Plan;
use super::state::{LONGEST, State};

/// Beside more rows, arithmetic is the limit on any processor, and drafts are not even planned.
const MOST_ROWS: usize = 32;
/// A draft must promise a token in this share of a plain token's time, alone and beside others, where less is
/// known of what it takes.
const WORTH_IT: f64 = 0.97;
const WORTH_IT_BESIDE_OTHERS: f64 = 0.9;
/// To replace what drafts, another must promise this share of its time: estimates are noisy.
const STAYS: f64 = 0.98;

/// The plans of texts of one subject, each with the tokens that it can take, beside `others` other rows.
pub(crate) fn plan_together(texts: &mut [(usize, &mut Adaptive)], others: usize) -> Vec<Plan> {
    let company = Company { texts: texts.len(), others };
    let mut states: Vec<_> = texts.iter_mut().map(|(space, adaptive)| (*space, adaptive.known())).collect();
    plan_group(&mut states, company)
}

/// The plans of texts of one model, head and depth, each with the tokens that it can take.
pub(super) fn plan_group(texts: &mut [(usize, &mut State)], company: Company) -> Vec<Plan> {
    let Some((_, first)) = texts.first() else { return Vec::new() };
    let (depth, drafting) = (first.depth, first.drafting);
    let may_draft = company.rows() <= MOST_ROWS
        && texts.iter_mut().fold(true, |all, (_, state)| state.may_draft(company) && all);
    if !may_draft {
        return texts.iter_mut().map(|(_, state)| state.rest(company)).collect();
    }
    let Some((_, first)) = texts.first() else { return Vec::new() };
    let costs = first.costs.table(company.others + company.texts * (LONGEST + 1));
    let rows = company.rows();
    let worth_it = if rows > 1 { WORTH_IT_BESIDE_OTHERS } else { WORTH_IT };
    let plain = (costs.layers(depth, rows) + costs.head(rows)) / rows as f64;
    let (mut best, mut chosen) = (plain, None);
    let drafters: Vec<_> = first.chances.drafters().collect();
    for drafter in drafters {
        let affordable = |(space, state): &(usize, &mut State)| {
            state.affordable(drafter, (*space).min(LONGEST), company.spread())
        };
        let longest: Vec<usize> = texts.iter().map(affordable).collect();
        let chances: Vec<f64> = texts.iter().map(|(_, state)| state.chances.of(drafter)).collect();
        let drafts = Drafts { drafter, chances: &chances, longest: &longest };
        let (length, pace) = drafts.soonest(&costs, depth, company);
        let stays = if drafter == drafting { STAYS } else { 1.0 };
        if length > 0 && stays * pace < best.min(worth_it * plain) {
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
        // Beside others a look at an exit is a call more, and mostly for nothing.
        let probe = if rows > 1 { None } else { state.probe(&costs, drafter, best) };
        plans.push(Plan { drafter, num_speculations, probe });
    }
    plans
}
