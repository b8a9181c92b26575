//! Plans for all texts of a step together: what a draft costs depends on who shares it.

use super::super::costs::Costs;
use super::super::plan::Plan;
use super::{Adaptive, LONGEST, State, Subject};

/// A draft must promise a token in this share of a plain token's time.
const WORTH_IT: f64 = 0.97;
/// To replace the exit that drafts, another must promise this share of its time: estimates are noisy.
const STAYS: f64 = 0.98;

/// Who shares a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Company {
    /// Texts that this policy plans for together.
    pub(super) texts: usize,
    /// Other texts, of which each has a row.
    pub(super) others: usize,
}

/// An exit that drafts in a step, and how many tokens for each of the texts.
pub(super) struct Drafts<'a> {
    pub(super) exit_layer: usize,
    pub(super) chances: &'a [f64],
    pub(super) longest: &'a [usize],
}

/// A text that asks for a plan, and how many tokens it can take.
pub(crate) struct Asking<'a> {
    pub(crate) adaptive: &'a mut Adaptive,
    pub(crate) space: usize,
}

/// Plans for all texts of a step that ask, beside `others` that have a row each: what a draft costs depends on who shares
/// it, so that texts of one model, head and depth get theirs together.
pub(crate) fn plan(asking: &mut [&mut Asking<'_>], others: usize) -> Vec<Plan> {
    let mut plans = vec![Plan::plain(0); asking.len()];
    let subjects: Vec<Subject> = asking.iter_mut().map(|one| one.adaptive.known().subject).collect();
    let mut left: Vec<usize> = (0..asking.len()).collect();
    while let Some(&first) = left.first() {
        let (group, rest): (Vec<usize>, Vec<usize>) =
            left.iter().partition(|&&index| subjects[index] == subjects[first]);
        let company = Company { texts: group.len(), others: others + asking.len() - group.len() };
        left = rest;
        let members = asking.iter_mut().enumerate().filter(|(index, _)| group.contains(index));
        let mut members: Vec<_> =
            members.map(|(_, one)| (one.space, one.adaptive.known())).collect::<Vec<(usize, &mut State)>>();
        for (index, plan) in group.iter().zip(plan_together(&mut members, company)) {
            plans[*index] = plan;
        }
    }
    plans
}

/// The plans of texts of one model, head and depth, each with the tokens that it can take.
pub(super) fn plan_together(texts: &mut [(usize, &mut State)], company: Company) -> Vec<Plan> {
    share_costs(texts);
    let Some((_, first)) = texts.first() else { return Vec::new() };
    let (costs, depth, drafting) = (first.costs.clone(), first.depth, first.drafting);
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
        plans.push(Plan { exit_layer, num_speculations, probe: state.probe(exit_layer, best) });
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

impl Company {
    pub(super) const ALONE: Self = Self { texts: 1, others: 0 };

    /// Rows of a step without drafts.
    pub(super) fn rows(&self) -> usize {
        self.texts + self.others
    }

    /// How much more of a plain token's bytes a call costs that only these texts share: plain tokens share theirs with
    /// the others, too.
    pub(super) fn spread(&self) -> f64 {
        self.rows() as f64 / self.texts as f64
    }
}

impl Drafts<'_> {
    /// The length at which a token comes soonest, and in how many seconds, if each is accepted with its text's chance.
    pub(super) fn soonest(&self, costs: &Costs, depth: usize, company: Company) -> (usize, f64) {
        let mut best = (0, f64::INFINITY);
        let (mut accepted, mut rows) = (vec![1.0; self.chances.len()], company.rows());
        let mut tokens = rows as f64;
        let mut seconds = costs.layers(self.exit_layer, rows);
        for length in 1..=self.longest.iter().copied().max().unwrap_or(0) {
            let mut drafting = 0;
            for ((accepted, chance), longest) in accepted.iter_mut().zip(self.chances).zip(self.longest) {
                if length <= *longest {
                    *accepted *= chance;
                    tokens += *accepted;
                    drafting += 1;
                }
            }
            rows += drafting;
            seconds += costs.draft_head(drafting) + costs.layers(self.exit_layer, drafting);
            let verify = costs.layers(depth - self.exit_layer, rows) + costs.head(rows);
            let pace = (seconds + verify) / tokens;
            if pace < best.1 {
                best = (length, pace);
            }
        }
        best
    }
}
