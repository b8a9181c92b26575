//! The policy that chooses exit layer and draft length while it runs: no knobs.
//!
//! Before each round it asks which exit and which length give a token soonest, by what drafting and verifying took so
//! far ([`Costs`]) and by how often each exit was right ([`Chances`]); during the round it goes on with the draft as
//! long as the next token is expected to save more than it costs. Exits that do not draft are seen in passing: their
//! states are computed anyway, and now and then a head is spent on them. What may come to nothing is kept within a
//! [`Budget`]: on a text where no exit is ever right, this is plain decoding and 2 % of work.

use super::Lesson;
use super::budget::Budget;
use super::chances::Chances;
use super::costs::{Clock, Costs};
use super::load::{Load, Shape};
use super::plan::Plan;
use offramp_kernels::pool::threads;
use offramp_model::{DraftHead, Llama};

/// The longest draft.
const LONGEST: usize = 15;
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

/// Who shares a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Company {
    /// Texts that this policy plans for together.
    texts: usize,
    /// Other texts, of which each has a row.
    others: usize,
}

/// An exit that drafts in a step, and how many tokens for each of the texts.
struct Drafts<'a> {
    exit_layer: usize,
    chances: &'a [f64],
    longest: &'a [usize],
}

/// A text that asks for a plan, and how many tokens it can take.
pub(crate) struct Asking<'a> {
    pub(crate) adaptive: &'a mut Adaptive,
    pub(crate) space: usize,
}

/// What is known of a model at a depth.
#[derive(Clone, Debug)]
struct State {
    subject: Subject,
    threads: usize, // that shared the work, without which times are others
    depth: usize,
    chances: Chances,
    costs: Costs,
    company: Company,
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

    /// Prepares to plan for a model: what was learnt of another model, head or depth is forgotten, and with another
    /// number of threads what everything takes.
    pub(super) fn know(&mut self, model: &Llama, head: Option<&DraftHead>, depth: usize) {
        let subject = Subject { model: model.id(), head: head.map(DraftHead::id), depth };
        let clock = self.clock;
        let state = match self.state.take() {
            Some(state) if state.subject == subject => state,
            _ => State::new(model, head, subject, clock),
        };
        let state = self.state.insert(state);
        if state.threads != threads() {
            (state.threads, state.costs) = (threads(), Costs::new(model, head, clock));
        }
    }

    fn known(&mut self) -> &mut State {
        self.state.as_mut().expect("a step begins with a plan")
    }

    /// The chance that a token is accepted which `exit_layer` chose by `margin`.
    pub(super) fn chance(&mut self, exit_layer: usize, margin: f32) -> f64 {
        self.known().chances.at(exit_layer, margin)
    }

    /// Whether to draft one more, when all `rows` so far are accepted with `chance`, beside so many texts that draft.
    pub(super) fn goes_on(&mut self, exit_layer: usize, rows: usize, chance: f64, drafting: usize) -> bool {
        let state = self.known();
        let next = state.chances.of(exit_layer);
        let head = state.costs.draft_head(drafting) / drafting as f64;
        chance * next * state.pace > head + state.of_another(exit_layer, rows, drafting)
    }

    /// Whether to verify a drafted token which, with all before it, is accepted with `chance`.
    pub(super) fn keeps(&mut self, exit_layer: usize, rows: usize, chance: f64, drafting: usize) -> bool {
        let state = self.known();
        chance * state.pace > state.of_another(exit_layer, rows, drafting)
    }

    /// A step is over.
    pub(super) fn learn(&mut self, lesson: &Lesson<'_>) {
        let Some(state) = &mut self.state else { return };
        state.costs.learn(lesson.times);
        let Lesson { plan, round, rows, .. } = *lesson;
        // Only as far as both continue the same text.
        let drafted: Vec<_> = lesson.draft.iter().chain(&lesson.dropped).zip(&round.tokens).collect();
        let probed: Vec<_> = lesson.probed.iter().zip(&round.tokens).collect();
        let mut agreed = 0;
        for (choice, token) in &drafted {
            agreed += usize::from(choice.token == **token);
            state.chances.saw(plan.exit_layer, choice.margin, choice.token == **token, None);
        }
        for (index, (choice, token)) in probed.iter().enumerate() {
            agreed += usize::from(choice.token == **token);
            let beside = drafted.get(index).map(|(choice, token)| (plan.exit_layer, choice.token == **token));
            let probe = plan.probe.unwrap_or(plan.exit_layer);
            state.chances.saw(probe, choice.margin, choice.token == **token, beside);
        }
        if !lesson.probed.is_empty() {
            state.budget.spend_on_probes(state.company.spread() * state.load.probe(rows));
        }
        let heads = lesson.draft.len() + usize::from(lesson.dropped.is_some());
        let shape = Shape { exit_layer: plan.exit_layer, rows, heads, spread: state.company.spread() };
        state.budget.spend_on_drafts(state.load.extra(shape, round.tokens.len()));
        state.budget.earn(round.tokens.len(), agreed);
        state.count(if rows > 1 { plan.exit_layer } else { state.depth }, rows - 1);
    }
}

/// Plans for all texts of a step that ask, beside `others` that have a row each: what a draft costs depends on who shares
/// it, so that texts of one model, head and depth get theirs together.
pub(super) fn plan(asking: &mut [&mut Asking<'_>], others: usize) -> Vec<Plan> {
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
fn plan_together(texts: &mut [(usize, &mut State)], company: Company) -> Vec<Plan> {
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
    const ALONE: Self = Self { texts: 1, others: 0 };

    /// Rows of a step without drafts.
    fn rows(&self) -> usize {
        self.texts + self.others
    }

    /// How much more of a plain token's bytes a call costs that only these texts share: plain tokens share theirs with
    /// the others, too.
    fn spread(&self) -> f64 {
        self.rows() as f64 / self.texts as f64
    }
}

impl Drafts<'_> {
    /// The length at which a token comes soonest, and in how many seconds, if each is accepted with its text's chance.
    fn soonest(&self, costs: &Costs, depth: usize, company: Company) -> (usize, f64) {
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

impl State {
    fn new(model: &Llama, head: Option<&DraftHead>, subject: Subject, clock: Clock) -> Self {
        let depth = subject.depth;
        Self {
            subject,
            threads: threads(),
            depth,
            chances: Chances::new(&Adaptive::exits(depth), depth),
            company: Company::ALONE,
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

    /// The longest draft whose work may be lost.
    fn affordable(&self, exit_layer: usize, longest: usize, spread: f64) -> usize {
        let lost = |length| self.load.extra(Shape { exit_layer, rows: length + 1, heads: length, spread }, 1);
        (1..=longest).take_while(|&length| lost(length) <= self.budget.drafts()).count()
    }

    /// The exit of which one would most like to know more: it might be better than what is known.
    fn probe(&self, drafting: usize, pace: f64) -> Option<usize> {
        if self.company.spread() * self.load.probe(1) > self.budget.probes() {
            return None;
        }
        let others = self.chances.layers().filter(|exit| *exit != drafting);
        let hope = |exit_layer| {
            let texts = self.company.texts;
            let (chances, longest) = (vec![self.chances.at_best(exit_layer); texts], vec![LONGEST; texts]);
            let drafts = Drafts { exit_layer, chances: &chances, longest: &longest };
            (exit_layer, drafts.soonest(&self.costs, self.depth, self.company).1)
        };
        others.map(hope).filter(|hope| hope.1 < pace).min_by(|a, b| a.1.total_cmp(&b.1)).map(|hope| hope.0)
    }

    /// Seconds of one more token of a draft, beside as many of other texts: its layers, and a row more to verify.
    fn of_another(&self, exit_layer: usize, rows: usize, drafting: usize) -> f64 {
        let (texts, all) = (self.company.texts, self.company.others + self.company.texts * rows);
        let verify = |rows| self.costs.layers(self.depth - exit_layer, rows) + self.costs.head(rows);
        let row = (verify(all + texts) - verify(all)) / texts as f64;
        self.costs.layers(exit_layer, drafting) / drafting as f64 + row.max(0.0)
    }
}

#[cfg(test)]
mod simulated;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::{Call, Timed};
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
        State::new(&model, None, subject, Clock::Bytes)
    }

    fn plan_alone(state: &mut State, space: usize) -> Plan {
        plan_together(&mut [(space, state)], Company::ALONE)[0]
    }

    #[test]
    fn it_begins_without_drafts_and_looks_at_exits() {
        let plan = plan_alone(&mut state(), 100);
        assert_eq!((plan.exit_layer, plan.num_speculations), (24, 0));
        assert!(plan.probe.is_some());
        let exits: Vec<_> = state().chances.layers().collect();
        assert_eq!(exits, [2, 3, 4, 6, 8, 12]);
    }

    /// The length at which exit 4 gives a token soonest, and in what part of a plain token's time.
    fn soonest(state: &State, chance: f64, company: Company) -> (usize, f64) {
        let (chances, longest) = (vec![chance; company.texts], vec![LONGEST; company.texts]);
        let drafts = Drafts { exit_layer: 4, chances: &chances, longest: &longest };
        let (length, pace) = drafts.soonest(&state.costs, 24, company);
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
            let mut costs = Costs::new(&model, None, clock);
            for rows in [1, 2, 4, 8, 16, 32, 64, 128] {
                let seconds = 1.0 + row * (rows - 1) as f64;
                let layers = Timed { call: Call::Layers(1), rows, seconds };
                let heads = [Call::Head, Call::DraftHead].map(|call| Timed { call, rows, seconds });
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
        let mut state = state();
        for _ in 0..200 {
            state.chances.saw(4, 3.0, true, None);
            state.chances.saw(8, 3.0, true, Some((4, true)));
            state.chances.saw(3, 3.0, false, Some((4, true)));
            state.chances.saw(2, 3.0, false, Some((4, true)));
            state.budget.earn(1, 1);
        }
        let plan = plan_alone(&mut state, 100);
        assert_eq!(
            (plan.exit_layer, plan.num_speculations > 4),
            (4, true),
            "as good as deeper ones: {plan:?}"
        );
        assert_eq!(plan_alone(&mut state, 2).num_speculations, 2, "no more than there is space for");
        (0..300).for_each(|_| state.chances.saw(4, 3.0, false, None));
        assert_eq!(plan_alone(&mut state, 100).num_speculations, 0);
    }

    #[test]
    fn with_other_threads_it_measures_anew() {
        let (model, mut adaptive) = (model(), Adaptive::default());
        let plain = |adaptive: &mut Adaptive| adaptive.known().costs.layers(24, 1);
        adaptive.know(&model, None, 24);
        let guess = plain(&mut adaptive);
        adaptive.known().costs.learn(&[Timed { call: Call::Layers(24), rows: 1, seconds: 5.0 }]);
        adaptive.known().chances.saw(4, 3.0, true, None);
        let (slow, chance) = (plain(&mut adaptive), adaptive.chance(4, 3.0));
        assert!(slow > 4.0);
        adaptive.know(&model, None, 24);
        assert_eq!(plain(&mut adaptive), slow, "nothing has changed");
        adaptive.known().threads += 1; // as if there had been more
        adaptive.know(&model, None, 24);
        assert_eq!(plain(&mut adaptive), guess);
        assert_eq!(adaptive.chance(4, 3.0), chance, "exits are as right as before");
    }
}
