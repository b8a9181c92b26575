//! What is known of one model at one depth: how often its exits are right, and what everything takes.

use super::budget::Budget;
use super::chances::Chances;
use super::costs::{Clock, CostTable, Costs};
use super::drafts::{Company, Drafts};
use super::load::{Load, Shape};
use offramp_kernels::pool::threads;
use offramp_model::{DraftHead, Llama};

/// The longest draft.
pub(super) const LONGEST: usize = 15;
/// A text that was beside others drafts again after so many steps alone: where texts come and go, most of
/// these moments are too short for a draft to pay.
const STEPS_ALONE: usize = 16;
/// Parts of the depth at which exits are considered.
const PARTS: [usize; 6] = [12, 8, 6, 4, 3, 2];

/// How often the policy drafted with an exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Layers that drafted; the full depth stands for rounds without a draft.
    pub exit_layer: usize,
    /// Rounds.
    pub rounds: usize,
    /// Tokens drafted in them.
    pub drafted: usize,
}

/// Whom something was learnt of: of another model, head or depth it would be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) model: u64,
    pub(super) head: Option<u64>,
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
    /// Steps since other texts shared one.
    pub(super) steps_alone: usize,
    /// The exit that drafted last.
    pub(super) drafting: usize,
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
    pub(super) fn new(model: &Llama, head: Option<&DraftHead>, subject: Subject, clock: Clock) -> Self {
        let depth = subject.depth;
        Self {
            subject,
            threads: threads(),
            depth,
            chances: Chances::new(&exits(depth), depth),
            company: Company::ALONE,
            steps_alone: usize::MAX,
            drafting: depth,
            costs: Costs::new(model, head, clock),
            load: Load::new(model, head, depth),
            budget: Budget::default(),
            pace: 0.0,
            chosen: Vec::new(),
        }
    }

    /// Whether it was beside others a moment ago; one more step is counted.
    pub(super) fn waits(&mut self) -> bool {
        self.steps_alone = self.steps_alone.saturating_add(1);
        self.steps_alone <= STEPS_ALONE
    }

    pub(super) fn count(&mut self, exit_layer: usize, drafted: usize) {
        let place = self.chosen.partition_point(|chosen| chosen.exit_layer < exit_layer);
        if self.chosen.get(place).is_none_or(|chosen| chosen.exit_layer != exit_layer) {
            self.chosen.insert(place, Chosen { exit_layer, rounds: 0, drafted: 0 });
        }
        self.chosen[place].rounds += 1;
        self.chosen[place].drafted += drafted;
    }

    /// The longest draft whose work may be lost.
    pub(super) fn affordable(&self, exit_layer: usize, longest: usize, spread: f64) -> usize {
        let lost = |length| self.load.extra(Shape { exit_layer, rows: length + 1, heads: length, spread }, 1);
        (1..=longest).take_while(|&length| lost(length) <= self.budget.drafts()).count()
    }

    /// The exit of which one would most like to know more: it might be better than what is known.
    pub(super) fn probe(&self, costs: &CostTable, drafting: usize, pace: f64) -> Option<usize> {
        if self.company.spread() * self.load.probe(1) > self.budget.probes() {
            return None;
        }
        let others = self.chances.layers().filter(|exit| *exit != drafting);
        let hope = |exit_layer| {
            let texts = self.company.texts;
            let (chances, longest) = (vec![self.chances.at_best(exit_layer); texts], vec![LONGEST; texts]);
            let drafts = Drafts { exit_layer, chances: &chances, longest: &longest };
            (exit_layer, drafts.soonest(costs, self.depth, self.company).1)
        };
        others.map(hope).filter(|hope| hope.1 < pace).min_by(|a, b| a.1.total_cmp(&b.1)).map(|hope| hope.0)
    }

    /// Seconds of one more token of a draft, beside as many of other texts: its layers, and a row more to
    /// verify.
    pub(super) fn of_another(&self, exit_layer: usize, rows: usize, drafting: usize) -> f64 {
        let (texts, all) = (self.company.texts, self.company.others + self.company.texts * rows);
        let verify = |rows| self.costs.layers(self.depth - exit_layer, rows) + self.costs.head(rows);
        let row = (verify(all + texts) - verify(all)) / texts as f64;
        self.costs.layers(exit_layer, drafting) / drafting as f64 + row.max(0.0)
    }
}
