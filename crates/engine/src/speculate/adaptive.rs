//! The policy that chooses exit layer and draft length while it runs: no knobs.
//!
//! Before each round it asks which layers and which length give a token soonest, by what drafting and
//! verifying took so far ([`Costs`]) and by how often each exit was right, or a copy of the first layers
//! ([`Chances`]); during the round it goes on with the draft as long as the next token is expected to save
//! more than it costs. Exits that do not draft are seen in passing: their states are computed anyway, and now
//! and then a head is spent on them. What may come to nothing is kept within a [`Budget`]: on a text where no
//! exit is ever right, this is plain decoding and 2 % of work.

use super::costs::{Clock, Costs};
use super::drafter::{Copies, Drafter};
use super::lesson::Lesson;
use super::load::Shape;
use super::paces::Step;
pub use super::state::Chosen;
use super::state::{self, State, Subject};
use super::sureness::Sureness;
use offramp_kernels::pool::threads;
use offramp_model::{DraftHead, DraftLayers, Llama};

/// Chooses exit and length, and learns from every round.
#[derive(Clone, Debug)]
pub struct Adaptive {
    clock: Clock,
    state: Option<State>,
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

    /// The exits that it considers in a model of `depth` layers, shallow first: a twelfth, an eighth, a
    /// sixth, a quarter, a third and a half of the depth.
    pub fn exits(depth: usize) -> Vec<usize> {
        state::exits(depth)
    }

    /// What it has chosen so far, shallow exits first.
    pub(super) fn chosen(&self) -> &[Chosen] {
        self.state.as_ref().map_or(&[], |state| &state.chosen)
    }

    /// Prepares to plan for a model: what was learnt of another model, copy or depth is forgotten, and with
    /// another number of threads what everything takes.
    pub(crate) fn know(&mut self, model: &Llama, copies: Copies<'_>, depth: usize) {
        let (head, layers) = (copies.head.map(DraftHead::id), copies.layers.map(DraftLayers::id));
        let subject = Subject { model: model.id(), head, layers, depth };
        let clock = self.clock;
        let state = match self.state.take() {
            Some(state) if state.subject == subject => state,
            _ => State::new(model, copies, subject, clock),
        };
        let state = self.state.insert(state);
        if state.threads != threads() {
            (state.threads, state.costs) = (threads(), Costs::new(model, copies, clock));
        }
    }

    /// What it was prepared for: texts of one subject are planned together.
    pub(crate) fn subject(&self) -> Option<Subject> {
        self.state.as_ref().map(|state| state.subject)
    }

    pub(super) fn known(&mut self) -> &mut State {
        self.state.as_mut().expect("a step begins with a plan")
    }

    /// The chance that a token is accepted which was drafted so surely.
    pub(super) fn chance(&mut self, drafter: Drafter, sure: Sureness) -> f64 {
        self.known().chances.at(drafter, sure)
    }

    /// Whether to draft one more, when all `rows` so far are accepted with `chance`, beside so many texts
    /// that draft.
    pub(super) fn goes_on(&mut self, drafter: Drafter, rows: usize, chance: f64, drafting: usize) -> bool {
        let state = self.known();
        let next = state.chances.of(drafter);
        let head = state.costs.draft_head(drafting) / drafting as f64;
        let takes = head + state.of_drafting(drafter, drafting) + state.of_verifying(drafter, rows);
        !state.costs.are_known() || chance * next * state.pace > takes
    }

    /// Whether to verify a drafted token which, with all before it, is accepted with `chance`.
    pub(super) fn keeps(&mut self, drafter: Drafter, rows: usize, chance: f64, drafting: usize) -> bool {
        let state = self.known();
        // Its own layers have to take it too, to verify it.
        let layers = if drafter.apart { 0.0 } else { state.of_drafting(drafter, drafting) };
        !state.costs.are_known() || chance * state.pace > layers + state.of_verifying(drafter, rows)
    }

    /// A step is over.
    pub(super) fn learn(&mut self, lesson: &Lesson<'_>) {
        let Some(state) = &mut self.state else { return };
        state.costs.learn(lesson.times);
        let drafted = state.drafting != Drafter::own(state.depth);
        // A look at an exit is no part of a plain step.
        if state.costs.are_measured() && (drafted || lesson.probed.is_empty()) {
            let seconds = lesson.times.iter().map(|time| time.seconds).sum();
            state.paces.saw(state.company.rows(), Step { drafted, seconds, tokens: lesson.came });
        }
        let Lesson { plan, round, rows, .. } = *lesson;
        // Only as far as both continue the same text.
        let drafted: Vec<_> = lesson.draft.iter().chain(&lesson.dropped).zip(&round.tokens).collect();
        let probed: Vec<_> = lesson.probed.iter().zip(&round.tokens).collect();
        let mut agreed = 0;
        for (choice, token) in &drafted {
            agreed += usize::from(choice.token == **token);
            state.chances.saw(plan.drafter, choice.sure, choice.token == **token);
        }
        for (index, (choice, token)) in probed.iter().enumerate() {
            agreed += usize::from(choice.token == **token);
            // What a copy of all layers gets wrong says nothing of exits.
            let drafted = drafted.get(index).filter(|_| plan.drafter.exit_layer < state.depth);
            let beside = drafted.map(|(choice, token)| (plan.drafter, choice.token == **token));
            let probe = plan.probe.unwrap_or(plan.drafter.exit_layer);
            state.chances.saw_exit(probe, choice.sure, choice.token == **token, beside);
        }
        if !lesson.probed.is_empty() {
            state.budget.spend_on_probes(state.company.spread() * state.load.probe(rows));
        }
        let heads = lesson.draft.len() + usize::from(lesson.dropped.is_some());
        let shape = Shape { drafter: plan.drafter, rows, heads, spread: state.company.spread() };
        state.budget.spend_on_drafts(state.load.extra(shape, round.tokens.len()));
        state.budget.earn(round.tokens.len(), agreed);
        let drafter = if rows > 1 { plan.drafter } else { Drafter::own(state.depth) };
        state.count(drafter, rows - 1);
    }
}

#[cfg(test)]
mod simulated;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speculate::drafts::{Company, Drafts};
    use crate::speculate::plan::Plan;
    use crate::speculate::state::LONGEST;
    use crate::speculate::together::plan_group;
    use crate::workspace::{Call, CallTime};
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
        let subject = Subject { model: model.id(), head: None, layers: None, depth: 24 };
        State::new(&model, Copies::default(), subject, Clock::Bytes)
    }

    fn plan_alone(state: &mut State, space: usize) -> Plan {
        plan_group(&mut [(space, state)], Company::ALONE)[0]
    }

    #[test]
    fn it_begins_without_drafts_and_looks_at_exits() {
        let plan = plan_alone(&mut state(), 100);
        assert_eq!((plan.drafter, plan.num_speculations), (Drafter::own(24), 0));
        assert!(plan.probe.is_some());
        let exits: Vec<_> = state().chances.layers().collect();
        assert_eq!(exits, [2, 3, 4, 6, 8, 12]);
    }

    /// The length at which exit 4 gives a token soonest, and in what part of a plain token's time.
    fn soonest(state: &State, chance: f64, company: Company) -> (usize, f64) {
        let (chances, longest) = (vec![chance; company.texts], vec![LONGEST; company.texts]);
        let drafts = Drafts { drafter: Drafter::own(4), chances: &chances, longest: &longest };
        let (length, pace) = drafts.soonest(&state.costs.table(16 * company.rows()), 24, company);
        let rows = company.rows();
        (length, pace * rows as f64 / (state.costs.layers(24, rows) + state.costs.head(rows)))
    }

    #[test]
    fn the_better_an_exit_the_longer_its_drafts() {
        let state = state();
        let length = |chance| soonest(&state, chance, Company::ALONE).0;
        assert!(length(0.5) < length(0.8) && length(0.8) < length(0.97));
        assert!(soonest(&state, 0.0, Company::ALONE).1 > 1.0 && soonest(&state, 0.9, Company::ALONE).1 < 0.6);
    }

    /// Where each row takes its time, a token that is rejected is as dear as one that is not.
    #[test]
    fn many_texts_draft_less_where_rows_are_dear() {
        let (mut cheap, mut dear) = (state(), state());
        let (model, clock) = (model(), Clock::Machine);
        [cheap.costs, dear.costs] = [0.01, 1.0].map(|row| {
            let mut costs = Costs::new(&model, Copies::default(), clock);
            for rows in [1, 2, 4, 8, 16, 32, 64, 128] {
                let seconds = 1.0 + row * (rows - 1) as f64;
                let layers = CallTime { call: Call::Layers(1), rows, seconds };
                let heads = [Call::Head, Call::DraftHead].map(|call| CallTime { call, rows, seconds });
                (0..9).for_each(|_| costs.learn(&[layers, heads[0], heads[1]]));
            }
            costs
        });
        let company = Company { texts: 8, others: 0 };
        assert!(soonest(&cheap, 0.8, company).1 < 0.65, "{:?}", soonest(&cheap, 0.8, company));
        assert!(soonest(&dear, 0.8, company).1 > 0.97, "{:?}", soonest(&dear, 0.8, company));
    }

    #[test]
    fn it_drafts_with_the_exit_that_pays_and_stops_when_none_does() {
        let (mut state, exit_4) = (state(), Drafter::own(4));
        for _ in 0..200 {
            let beside = Some((exit_4, true));
            state.chances.saw_exit(4, Sureness::of(3.0), true, None);
            state.chances.saw_exit(8, Sureness::of(3.0), true, beside);
            state.chances.saw_exit(3, Sureness::of(3.0), false, beside);
            state.chances.saw_exit(2, Sureness::of(3.0), false, beside);
            state.budget.earn(1, 1);
        }
        let plan = plan_alone(&mut state, 100);
        assert_eq!(
            (plan.drafter, plan.num_speculations > 4),
            (exit_4, true),
            "as good as deeper ones: {plan:?}"
        );
        assert_eq!(plan_alone(&mut state, 2).num_speculations, 2, "no more than there is space for");
        (0..300).for_each(|_| state.chances.saw(exit_4, Sureness::of(3.0), false));
        assert_eq!(plan_alone(&mut state, 100).num_speculations, 0);
    }

    #[test]
    fn with_other_threads_it_measures_anew() {
        let (model, mut adaptive) = (model(), Adaptive::default());
        let plain = |adaptive: &mut Adaptive| adaptive.known().costs.layers(24, 1);
        adaptive.know(&model, Copies::default(), 24);
        let guess = plain(&mut adaptive);
        adaptive.known().costs.learn(&[CallTime { call: Call::Layers(24), rows: 1, seconds: 5.0 }]);
        adaptive.known().chances.saw(Drafter::own(4), Sureness::of(3.0), true);
        let (slow, chance) = (plain(&mut adaptive), adaptive.chance(Drafter::own(4), Sureness::of(3.0)));
        assert!(slow > 4.0);
        adaptive.know(&model, Copies::default(), 24);
        assert_eq!(plain(&mut adaptive), slow, "nothing has changed");
        adaptive.known().threads += 1; // as if there had been more
        adaptive.know(&model, Copies::default(), 24);
        assert_eq!(plain(&mut adaptive), guess);
        assert_eq!(
            adaptive.chance(Drafter::own(4), Sureness::of(3.0)),
            chance,
            "exits are as right as before"
        );
    }
}
