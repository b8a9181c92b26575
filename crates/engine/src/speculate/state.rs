//! What is known of one model at one depth: how often its exits are right, and what everything takes.

use super::budget::Budget;
use super::chances::Chances;
use super::costs::{Clock, CostTable, Costs};
use super::drafter::{Copies, Drafter};
use super::drafts::{Company, Drafts};
use super::load::{Load, Shape};
use super::paces::Paces;
use super::plan::Plan;
use offramp_kernels::pool::threads;
use offramp_model::{DraftLayers, Llama};

/// The longest draft.
pub(super) const LONGEST: usize = 15;
/// Parts of the depth at which exits are considered.
const PARTS: [usize; 6] = [12, 8, 6, 4, 3, 2];

/// How often the policy drafted with an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Layers that drafted; the full depth of the model's own stands for rounds without a draft.
    pub exit_layer: usize,
    /// Whether they were copies in a narrower format.
    pub copies: bool,
    /// Rounds.
    pub rounds: usize,
    /// Tokens drafted in them.
    pub drafted: usize,
}

/// Whom something was learnt of: of another model, head, copy or depth it would be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(super) model: u64,
    pub(super) head: Option<u64>,
    pub(super) layers: Option<u64>,
    pub(super) depth: usize,
}

/// What is known of a model at a depth.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) subject: Subject,
    pub(super) threads: usize, // that shared the work, without which times are others
    pub(super) depth: usize,
    pub(super) chances: Chances,
    pub(super) costs: Costs,
    pub(super) company: Company,
    /// What steps took, with drafts and without.
    pub(super) paces: Paces,
    /// What drafted last.
    pub(super) drafting: Drafter,
    pub(super) load: Load,
    pub(super) budget: Budget,
    /// Seconds that a token is expected to take.
    pub(super) pace: f64,
    pub(super) chosen: Vec<Chosen>,
}

/// The exits that the policy considers in a model of `depth` layers, shallow first: a twelfth, an eighth, a
/// sixth, a quarter, a third and a half of the depth.
pub(super) fn exits(depth: usize) -> Vec<usize> {
    let mut exits: Vec<usize> = PARTS.iter().map(|part| depth.div_ceil(*part)).collect();
    exits.retain(|&exit| exit < depth);
    exits.dedup();
    exits
}

impl State {
    pub(super) fn new(model: &Llama, copies: Copies<'_>, subject: Subject, clock: Clock) -> Self {
        let depth = subject.depth;
        let copied = copies.layers.map_or(0, DraftLayers::layers);
        Self {
            subject,
            threads: threads(),
            depth,
            chances: Chances::new(&exits(depth), depth, copied),
            company: Company::ALONE,
            paces: Paces::default(),
            drafting: Drafter::own(depth),
            costs: Costs::new(model, copies, clock),
            load: Load::new(model, copies, depth),
            budget: Budget::new(copied > 0),
            pace: 0.0,
            chosen: Vec::new(),
        }
    }

    /// Whether drafts may be part of the next step: where they were not slower.
    pub(super) fn may_draft(&mut self, company: Company) -> bool {
        !self.costs.are_measured() || self.paces.allow(company.rows())
    }

    /// Plain decoding in such a company, without a look at exits.
    pub(super) fn rest(&mut self, company: Company) -> Plan {
        (self.company, self.drafting) = (company, Drafter::own(self.depth));
        Plan::plain(self.depth)
    }

    pub(super) fn count(&mut self, Drafter { exit_layer, apart: copies }: Drafter, drafted: usize) {
        let key = |chosen: &Chosen| (chosen.exit_layer, chosen.copies);
        let place = self.chosen.partition_point(|chosen| key(chosen) < (exit_layer, copies));
        if self.chosen.get(place).is_none_or(|chosen| key(chosen) != (exit_layer, copies)) {
            self.chosen.insert(place, Chosen { exit_layer, copies, rounds: 0, drafted: 0 });
        }
        self.chosen[place].rounds += 1;
        self.chosen[place].drafted += drafted;
    }

    /// The longest draft whose work may be lost.
    pub(super) fn affordable(&self, drafter: Drafter, longest: usize, spread: f64) -> usize {
        let lost = |length| self.load.extra(Shape { drafter, rows: length + 1, heads: length, spread }, 1);
        (1..=longest).take_while(|&length| lost(length) <= self.budget.drafts()).count()
    }

    /// The exit of which one would most like to know more: it might be better than what is known.
    pub(super) fn probe(&self, costs: &CostTable, drafting: Drafter, pace: f64) -> Option<usize> {
        if self.company.spread() * self.load.probe(1) > self.budget.probes() {
            return None;
        }
        // A copy is as good as its exit, and a copy of all layers is known by its drafts.
        let known = [drafting.exit_layer, self.depth];
        let others = self.chances.drafters().filter(|other| !known.contains(&other.exit_layer));
        let hope = |drafter: Drafter| {
            let texts = self.company.texts;
            let chance = self.chances.at_best(drafter, drafting != Drafter::copy(self.depth));
            let (chances, longest) = (vec![chance; texts], vec![LONGEST; texts]);
            let drafts = Drafts { drafter, chances: &chances, longest: &longest };
            (drafter.exit_layer, drafts.soonest(costs, self.depth, self.company).1)
        };
        others.map(hope).filter(|hope| hope.1 < pace).min_by(|a, b| a.1.total_cmp(&b.1)).map(|hope| hope.0)
    }

    /// Seconds of the layers that draft for one more token, beside as many of other texts.
    pub(super) fn of_drafting(&self, drafter: Drafter, drafting: usize) -> f64 {
        self.costs.drafts(drafter, drafting) / drafting as f64
    }

    /// Seconds of one more row to verify, beside as many of other texts.
    pub(super) fn of_verifying(&self, drafter: Drafter, rows: usize) -> f64 {
        let (texts, all) = (self.company.texts, self.company.others + self.company.texts * rows);
        let verify = |rows| self.costs.layers(drafter.above(self.depth), rows) + self.costs.head(rows);
        ((verify(all + texts) - verify(all)) / texts as f64).max(0.0)
    }
}
