//! The policy that chooses exit layer and draft length while it runs: no knobs.
//!
//! Before each round it asks which exit and which length give a token soonest, by what drafting and verifying took so
//! far ([`Costs`]) and by how often each exit was right ([`Acceptance`]); during the round it goes on with the draft as
//! long as the next token is expected to save more than it costs. Exits that do not draft are seen in passing: their
//! states are computed anyway, and now and then a head is spent on them. What may come to nothing is kept within a
//! [`Budget`]: on a text where no exit is ever right, this is plain decoding and 2 % of work.

use super::acceptance::Acceptance;
use super::budget::Budget;
use super::costs::{Clock, Costs};
use super::load::{Load, Shape};
use super::round::{Plan, Seen};
use offramp_model::{DraftHead, Llama};

/// The longest draft.
const LONGEST: usize = 15;
/// Parts of the depth at which exits are considered.
const PARTS: [usize; 6] = [12, 8, 6, 4, 3, 2];
/// Choices of an exit that say something of its neighbours.
const ENOUGH: f64 = 4.0;
/// The first layers bring an exit nearer to the whole than later ones do: as this power of the depth, by a guess.
const FIRST_LAYERS: f64 = 0.4;
/// A draft must promise a token in so much of a plain token's time.
const WORTH_IT: f64 = 0.97;

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

/// What is known of a model at a depth.
#[derive(Clone, Debug)]
struct State {
    depth: usize,
    exits: Vec<(usize, Acceptance)>,
    costs: Costs,
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

    /// What it has chosen so far, shallow exits first.
    pub(super) fn chosen(&self) -> &[Chosen] {
        self.state.as_ref().map_or(&[], |state| &state.chosen)
    }

    /// The plan of the next round, of which at most `room` tokens are drafted.
    pub(super) fn plan(
        &mut self,
        (model, head): (&Llama, Option<&DraftHead>),
        depth: usize,
        room: usize,
    ) -> Plan {
        if self.state.as_ref().is_none_or(|state| state.depth != depth) {
            self.state = Some(State::new(model, head, depth, self.clock));
        }
        self.known().plan(room)
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
        let state = self.known();
        let exit = state.exits.iter().position(|exit| exit.0 == exit_layer);
        exit.map_or(0.5, |exit| state.exits[exit].1.chance_at(margin, state.chance(exit)))
    }

    /// Whether to draft one more, when all `rows` so far are accepted with `chance`.
    pub(super) fn goes_on(&mut self, exit_layer: usize, rows: usize, chance: f64) -> bool {
        let state = self.known();
        let exit = state.exits.iter().position(|exit| exit.0 == exit_layer);
        let next = exit.map_or(0.0, |exit| state.chance(exit));
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
        for &Seen { exit_layer, margin, equal } in seen {
            let exit = state.exits.iter_mut().find(|exit| exit.0 == exit_layer);
            exit.into_iter().for_each(|exit| exit.1.saw(margin, equal));
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
    fn new(model: &Llama, head: Option<&DraftHead>, depth: usize, clock: Clock) -> Self {
        let mut exits: Vec<usize> = PARTS.iter().map(|part| depth.div_ceil(*part)).collect();
        exits.retain(|&exit| exit < depth);
        exits.dedup();
        Self {
            depth,
            exits: exits.into_iter().map(|exit| (exit, Acceptance::default())).collect(),
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
        let plain = self.costs.plain(self.depth);
        let (mut plan, mut best) = (Plan { exit_layer: self.depth, num_speculations: 0, probe: None }, plain);
        for (index, &(exit_layer, _)) in self.exits.iter().enumerate() {
            let longest = self.affordable(exit_layer, room.min(LONGEST));
            let (length, pace) = self.soonest(exit_layer, self.chance(index), longest);
            if length > 0 && pace < best.min(WORTH_IT * plain) {
                best = pace;
                plan = Plan { exit_layer, num_speculations: longest, probe: None };
            }
        }
        self.pace = best;
        plan.probe = self.probe(plan.exit_layer, best);
        plan
    }

    /// The chance that a token of an exit is accepted.
    fn chance(&self, index: usize) -> f64 {
        self.exits[index].1.chance(self.guess(index))
    }

    /// What the exits around one say of it: on the line between them. Beyond them, no layer is never right, and all
    /// layers always are.
    fn guess(&self, index: usize) -> f64 {
        let known = |(exit, acceptance): &&(usize, Acceptance)| {
            (acceptance.compared() >= ENOUGH).then(|| (*exit as f64, acceptance.share()))
        };
        let below = self.exits[..index].iter().rev().find_map(|exit| known(&exit)).unwrap_or((0.0, 0.0));
        let above = self.exits[index + 1..].iter().find_map(|exit| known(&exit));
        let above = above.unwrap_or((self.depth as f64, 1.0));
        let part = (self.exits[index].0 as f64 - below.0) / (above.0 - below.0);
        let part = if below.0 == 0.0 { part.powf(FIRST_LAYERS) } else { part };
        below.1 + part * (above.1 - below.1)
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
            let seconds = draft + heads + self.costs.verify(self.depth - exit_layer, length + 1);
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
        let others = self.exits.iter().enumerate().filter(|(_, (exit, _))| *exit != drafting);
        let hopes = others.map(|(index, (exit, acceptance))| {
            (*exit, self.soonest(*exit, acceptance.at_best(self.guess(index)), LONGEST).1)
        });
        hopes.filter(|hope| hope.1 < pace).min_by(|a, b| a.1.total_cmp(&b.1)).map(|hope| hope.0)
    }

    /// Seconds of one more token of a draft: its layers, and a row more to verify.
    fn of_another(&self, exit_layer: usize, rows: usize) -> f64 {
        let verify = |rows| self.costs.verify(self.depth - exit_layer, rows);
        self.costs.extend(exit_layer) + (verify(rows + 1) - verify(rows)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_model::{Config, Formats};
    use std::path::Path;

    fn state() -> State {
        let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "vocab_size": 64,
            "num_hidden_layers": 24, "num_attention_heads": 2, "max_position_embeddings": 64}"#;
        let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
        let model = Llama::random(config, 1, &Formats::default()).expect("a small model");
        State::new(&model, None, 24, Clock::Bytes)
    }

    #[test]
    fn it_begins_without_drafts_and_looks_at_exits() {
        let plan = state().plan(100);
        assert_eq!((plan.exit_layer, plan.num_speculations), (24, 0));
        assert!(plan.probe.is_some());
        let exits: Vec<_> = state().exits.iter().map(|exit| exit.0).collect();
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
            state.exits[2].1.saw(3.0, true);
            state.exits[4].1.saw(3.0, true);
            state.budget.earn(1, 1);
        }
        let plan = state.plan(100);
        assert_eq!(
            (plan.exit_layer, plan.num_speculations > 4),
            (4, true),
            "as good as the deeper one: {plan:?}"
        );
        assert_eq!(state.plan(2).num_speculations, 2, "no more than there is room for");
        (0..300).for_each(|_| state.exits.iter_mut().for_each(|exit| exit.1.saw(3.0, false)));
        assert_eq!(state.plan(100).num_speculations, 0);
    }
}
