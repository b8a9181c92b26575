//! The policy that chooses exit layer and draft length while it runs: no knobs.
//!
//! Before each round it asks which exit and which length give a token soonest, by what drafting and verifying took so
//! far ([`Costs`]) and by how often each exit was right ([`Chances`]); during the round it goes on with the draft as
//! long as the next token is expected to save more than it costs. Exits that do not draft are seen in passing: their
//! states are computed anyway, and now and then a head is spent on them. What may come to nothing is kept within a
//! [`Budget`]: on a text where no exit is ever right, this is plain decoding and 2 % of work.

use super::budget::Budget;
use super::chances::Chances;
use super::costs::{Clock, Costs, ROWS};
use super::load::{Load, Shape};
use super::round::{Plan, Seen};
use offramp_kernels::pool::threads;
use offramp_model::{DraftHead, Llama};

/// The longest draft.
const LONGEST: usize = ROWS - 1;
/// Parts of the depth at which exits are considered.
const PARTS: [usize; 6] = [12, 8, 6, 4, 3, 2];
/// A draft must promise a token in so much of a plain token's time.
const WORTH_IT: f64 = 0.97;
/// Another exit must promise more than this much less: estimates tremble.
const STAYS: f64 = 0.98;

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

/// Chooses exit and length, and learns from every round.
#[derive(Clone, Debug)]
pub struct Adaptive {
    clock: Clock,
    state: Option<State>,
}

/// Whom something was learnt of: of another model, head or depth it would be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subject {
    model: u64,
    head: Option<u64>,
    depth: usize,
}

/// What is known of a model at a depth.
#[derive(Clone, Debug)]
struct State {
    subject: Subject,
    threads: usize, // that shared the work, without which times are others
    depth: usize,
    chances: Chances,
    costs: Costs,
    /// What they say this round: a layer and the head over each number of rows.
    by_rows: [(f64, f64); ROWS + 1],
    /// The exit that drafted last.
    drafting: usize,
    load: Load,
    budget: Budget,
    /// Seconds that a token is expected to take.
    pace: f64,
    chosen: Vec<Chosen>,
}

impl Default for Adaptive {
    fn default() -> Self {
        Self { clock: Clock::Machine, state: None }
    }
}

impl Adaptive {
    /// One that takes a call's bytes for its time: it decides the same wherever it runs.
    pub fn by_bytes() -> Self {
        Self { clock: Clock::Bytes, state: None }
    }

    /// The exits that it considers in a model of `depth` layers, shallow first: a twelfth, an eighth, a sixth, a quarter, a third
    /// and a half of the depth.
    pub fn exits(depth: usize) -> Vec<usize> {
        let mut exits: Vec<usize> = PARTS.iter().map(|part| depth.div_ceil(*part)).collect();
        exits.retain(|&exit| exit < depth);
        exits.dedup();
        exits
    }

    /// What it has chosen so far, shallow exits first.
    pub(super) fn chosen(&self) -> &[Chosen] {
        self.state.as_ref().map_or(&[], |state| &state.chosen)
    }

    /// The plan of the next round, of which at most `room` tokens are drafted. What was learnt of another model, head or
    /// depth is forgotten, and with another number of threads what everything takes.
    pub(super) fn plan(
        &mut self,
        (model, head): (&Llama, Option<&DraftHead>),
        depth: usize,
        room: usize,
    ) -> Plan {
        let subject = Subject { model: model.id(), head: head.map(DraftHead::id), depth };
        let clock = self.clock;
        let state = match self.state.take() {
            Some(state) if state.subject == subject => state,
            _ => State::new((model, head), subject, clock),
        };
        let state = self.state.insert(state);
        if state.threads != threads() {
            (state.threads, state.costs) = (threads(), Costs::new(model, head, clock));
        }
        state.plan(room)
    }

    fn known(&mut self) -> &mut State {
        self.state.as_mut().expect("a round begins with a plan")
    }

    /// What is being learnt, once a round was planned.
    pub(super) fn costs(&mut self) -> &mut Costs {
        &mut self.known().costs
    }

    /// The chance that a token is accepted which `exit_layer` chose by `margin`.
    pub(super) fn chance(&mut self, exit_layer: usize, margin: f32) -> f64 {
        self.known().chances.at(exit_layer, margin)
    }

    /// Whether to draft one more, when all `rows` so far are accepted with `chance`.
    pub(super) fn goes_on(&mut self, exit_layer: usize, rows: usize, chance: f64) -> bool {
        let state = self.known();
        let next = state.chances.of(exit_layer);
        let cost = state.costs.draft_head() + state.of_another(exit_layer, rows);
        chance * next * state.pace > cost
    }

    /// Whether to verify a drafted token which, with all before it, is accepted with `chance`.
    pub(super) fn keeps(&mut self, exit_layer: usize, rows: usize, chance: f64) -> bool {
        let state = self.known();
        chance * state.pace > state.of_another(exit_layer, rows)
    }

    /// A round is over: `seen` are choices of exits beside the full model's, and it gave `tokens` tokens.
    pub(super) fn learn(&mut self, plan: Plan, (rows, heads): (usize, usize), seen: &[Seen], tokens: usize) {
        let state = self.known();
        let (drafted, probed) =
            seen.split_at(seen.partition_point(|seen| seen.exit_layer == plan.exit_layer));
        drafted.iter().for_each(|seen| state.chances.saw(seen.exit_layer, (seen.margin, seen.equal), None));
        for (index, seen) in probed.iter().enumerate() {
            let beside = drafted.get(index).map(|drafted| (drafted.exit_layer, drafted.equal));
            state.chances.saw(seen.exit_layer, (seen.margin, seen.equal), beside);
        }
        if plan.probe.is_some() {
            state.budget.spend_on_probes(state.load.probe(rows));
        }
        let shape = Shape { exit_layer: plan.exit_layer, rows, heads };
        state.budget.spend_on_drafts(state.load.extra(shape, tokens));
        state.budget.earn(tokens, seen.iter().filter(|seen| seen.equal).count());
        state.count(if rows > 1 { plan.exit_layer } else { state.depth }, rows - 1);
    }
}

impl State {
    fn new((model, head): (&Llama, Option<&DraftHead>), subject: Subject, clock: Clock) -> Self {
        let depth = subject.depth;
        Self {
            subject,
            threads: threads(),
            depth,
            chances: Chances::new(&Adaptive::exits(depth), depth),
            by_rows: [(0.0, 0.0); ROWS + 1],
            drafting: depth,
            costs: Costs::new(model, head, clock),
            load: Load::new(model, head, depth),
            budget: Budget::default(),
            pace: 0.0,
            chosen: Vec::new(),
        }
    }

    fn count(&mut self, exit_layer: usize, drafted: usize) {
        let place = self.chosen.partition_point(|chosen| chosen.exit_layer < exit_layer);
        if self.chosen.get(place).is_none_or(|chosen| chosen.exit_layer != exit_layer) {
            self.chosen.insert(place, Chosen { exit_layer, rounds: 0, drafted: 0 });
        }
        self.chosen[place].rounds += 1;
        self.chosen[place].drafted += drafted;
    }

    fn plan(&mut self, room: usize) -> Plan {
        self.by_rows = self.costs.by_rows();
        let plain = self.costs.plain(self.depth);
        let (mut plan, mut best) = (Plan { exit_layer: self.depth, num_speculations: 0, probe: None }, plain);
        for exit_layer in self.chances.layers() {
            let longest = self.affordable(exit_layer, room.min(LONGEST));
            let (length, pace) = self.soonest(exit_layer, self.chances.of(exit_layer), longest);
            let stays = if exit_layer == self.drafting { STAYS } else { 1.0 };
            if length > 0 && stays * pace < best.min(WORTH_IT * plain) {
                best = stays * pace;
                plan = Plan { exit_layer, num_speculations: longest, probe: None };
            }
        }
        self.drafting = plan.exit_layer;
        self.pace = best;
        plan.probe = self.probe(plan.exit_layer, best);
        plan
    }

    /// The longest draft whose work may be lost.
    fn affordable(&self, exit_layer: usize, longest: usize) -> usize {
        let lost = |length| self.load.extra(Shape { exit_layer, rows: length + 1, heads: length }, 1);
        (1..=longest).take_while(|&length| lost(length) <= self.budget.drafts()).count()
    }

    /// The length at which a token comes soonest, and in how many seconds, if each is accepted with `chance`.
    fn soonest(&self, exit_layer: usize, chance: f64, longest: usize) -> (usize, f64) {
        let mut best = (0, f64::INFINITY);
        let (mut tokens, mut accepted) = (1.0, 1.0);
        for length in 1..=longest {
            accepted *= chance;
            tokens += accepted;
            let draft = (length + 1) as f64 * self.costs.extend(exit_layer);
            let heads = length as f64 * self.costs.draft_head();
            let seconds = draft + heads + self.verify(exit_layer, length + 1);
            if seconds / tokens < best.1 {
                best = (length, seconds / tokens);
            }
        }
        best
    }

    /// The exit of which one would most like to know more: it might be better than what is known.
    fn probe(&self, drafting: usize, pace: f64) -> Option<usize> {
        if self.load.probe(1) > self.budget.probes() {
            return None;
        }
        let others = self.chances.layers().filter(|exit| *exit != drafting);
        let hopes = others.map(|exit| (exit, self.soonest(exit, self.chances.at_best(exit), LONGEST).1));
        hopes.filter(|hope| hope.1 < pace).min_by(|a, b| a.1.total_cmp(&b.1)).map(|hope| hope.0)
    }

    /// Seconds of one more token of a draft: its layers, and a row more to verify.
    fn of_another(&self, exit_layer: usize, rows: usize) -> f64 {
        let row = self.verify(exit_layer, rows + 1) - self.verify(exit_layer, rows);
        self.costs.extend(exit_layer) + row.max(0.0)
    }

    /// Seconds of the layers beyond an exit and of the head.
    fn verify(&self, exit_layer: usize, rows: usize) -> f64 {
        let (layer, head) = self.by_rows[rows.min(ROWS)];
        (self.depth - exit_layer) as f64 * layer + head
    }
}

#[cfg(test)]
mod simulated;

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_model::{Config, Formats};
    use std::path::Path;

    fn model() -> Llama {
        let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "vocab_size": 64,
            "num_hidden_layers": 24, "num_attention_heads": 2, "max_position_embeddings": 64}"#;
        let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
        Llama::random(config, 1, &Formats::default()).expect("a small model")
    }

    fn state() -> State {
        let model = model();
        let subject = Subject { model: model.id(), head: None, depth: 24 };
        let mut state = State::new((&model, None), subject, Clock::Bytes);
        state.by_rows = state.costs.by_rows();
        state
    }

    #[test]
    fn it_begins_without_drafts_and_looks_at_exits() {
        let plan = state().plan(100);
        assert_eq!((plan.exit_layer, plan.num_speculations), (24, 0));
        assert!(plan.probe.is_some());
        let exits: Vec<_> = state().chances.layers().collect();
        assert_eq!(exits, [2, 3, 4, 6, 8, 12]);
    }

    #[test]
    fn the_better_an_exit_the_longer_its_drafts() {
        let state = state();
        let length = |chance| state.soonest(4, chance, LONGEST).0;
        assert!(length(0.5) < length(0.8) && length(0.8) < length(0.97));
        let plain = state.costs.plain(24);
        assert!(state.soonest(4, 0.0, LONGEST).1 > plain && state.soonest(4, 0.9, LONGEST).1 < 0.6 * plain);
    }

    #[test]
    fn it_drafts_with_the_exit_that_pays_and_stops_when_none_does() {
        let mut state = state();
        for _ in 0..200 {
            state.chances.saw(4, (3.0, true), None);
            state.chances.saw(8, (3.0, true), Some((4, true)));
            state.chances.saw(3, (3.0, false), Some((4, true)));
            state.chances.saw(2, (3.0, false), Some((4, true)));
            state.budget.earn(1, 1);
        }
        let plan = state.plan(100);
        assert_eq!(
            (plan.exit_layer, plan.num_speculations > 4),
            (4, true),
            "as good as deeper ones: {plan:?}"
        );
        assert_eq!(state.plan(2).num_speculations, 2, "no more than there is room for");
        (0..300).for_each(|_| state.chances.saw(4, (3.0, false), None));
        assert_eq!(state.plan(100).num_speculations, 0);
    }

    #[test]
    fn with_other_threads_it_measures_anew() {
        let (model, mut adaptive) = (model(), Adaptive::default());
        adaptive.plan((&model, None), 24, 10);
        let guess = adaptive.known().costs.plain(24);
        adaptive.costs().saw_layers(24, 1, 5.0);
        adaptive.known().chances.saw(4, (3.0, true), None);
        let (slow, chance) = (adaptive.known().costs.plain(24), adaptive.chance(4, 3.0));
        assert!(slow > 4.0);
        adaptive.plan((&model, None), 24, 10);
        assert_eq!(adaptive.known().costs.plain(24), slow, "nothing has changed");
        adaptive.known().threads += 1; // as if there had been more
        adaptive.plan((&model, None), 24, 10);
        assert_eq!(adaptive.known().costs.plain(24), guess);
        assert_eq!(adaptive.chance(4, 3.0), chance, "exits are as right as before");
    }
}
