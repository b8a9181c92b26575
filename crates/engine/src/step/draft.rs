//! The first layers run ahead: a token of each text that drafts, then its choice, then the next token.

use super::turn::Turn;
use crate::Result;
use crate::climb::climb;
use crate::workspace::{Call, CallTime, Workspace};
use offramp_kernels::{pool, team};
use offramp_model::{DraftHead, Hidden, Llama};
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

/// Drafts as planned. Texts that do not draft go along as far as the shallowest draft, so that these layers
/// are read once less.
pub(super) fn draft(model: &Arc<Llama>, turns: &mut [Turn<'_>], workspace: &mut Workspace) -> Result<()> {
    for turn in turns.iter_mut().filter(|turn| turn.drafts_within()) {
        // Without a draft, the token waits where it is probed.
        let depth = match turn.plan.probe {
            Some(probe) if turn.plan.num_speculations == 0 => probe,
            _ => turn.plan.drafter.exit_layer,
        };
        turn.session.begin_draft(depth, turn.plan.probe);
    }
    let mut active: Vec<usize> = (0..turns.len()).filter(|&index| turns[index].drafts_within()).collect();
    if active.is_empty() {
        return Ok(());
    }
    let depths = turns.iter().filter(|turn| turn.drafts_within()).map(|turn| turn.plan.drafter.exit_layer);
    let shallowest = depths.min().unwrap_or(0);
    extend(model, turns, &active, Some(shallowest), workspace)?;
    loop {
        let drafting = active.len();
        active.retain(|&index| turns[index].goes_on(drafting));
        if active.is_empty() {
            return Ok(());
        }
        let drafting = active.len();
        let mut asked = members(turns, &active);
        read(model, &mut asked, newest_state, |turn, logits| turn.choose_next(logits), workspace);
        active.retain(|&index| turns[index].takes(drafting));
        for &index in &active {
            let Some(choice) = turns[index].draft.last().copied() else { continue };
            turns[index].session.extend_draft(choice.token)?;
        }
        if active.is_empty() {
            return Ok(());
        }
        extend(model, turns, &active, None, workspace)?;
    }
}

/// The state of a draft's newest token.
fn newest_state<'h>(turn: &'h mut Turn<'_>) -> (&'h Hidden, Range<usize>) {
    let states = turn.session.in_flight();
    (states, states.tokens() - 1..states.tokens())
}

/// Some of the turns.
pub(super) fn members<'m, 't>(turns: &'m mut [Turn<'t>], indices: &[usize]) -> Vec<&'m mut Turn<'t>> {
    turns.iter_mut().enumerate().filter(|(index, _)| indices.contains(index)).map(|(_, turn)| turn).collect()
}

/// Runs the newest token of the active texts up to the depths that draft; with `along`, the others to that
/// depth.
fn extend(
    model: &Arc<Llama>,
    turns: &mut [Turn<'_>],
    active: &[usize],
    along: Option<usize>,
    workspace: &mut Workspace,
) -> Result<()> {
    let is_active = |index: &usize| active.binary_search(index).is_ok();
    let mut arrived = false;
    while !arrived {
        let climbers = turns.iter_mut().enumerate().filter_map(|(index, turn)| match along {
            _ if is_active(&index) => Some(turn.session.newest_climber()),
            // A token that may leave looks at its exits on one way up.
            Some(depth) if !turn.drafts && !turn.session.is_leaving() => {
                let depth = depth.min(turn.session.exit_layer());
                Some(turn.session.climber(depth))
            }
            _ => None,
        });
        climb(model, &mut climbers.collect::<Vec<_>>(), workspace)?;
        arrived = true;
        for &index in active {
            arrived &= turns[index].session.newest_arrived();
        }
    }
    Ok(())
}

/// The states of a text that a head is to read.
pub(super) type States = for<'h> fn(&'h mut Turn<'_>) -> (&'h Hidden, Range<usize>);

/// Reads the states of some texts by the heads that draft for them, and hands each text the logits of its
/// own, `[rows, vocab]`; texts that draft by the same head ask it together.
pub(super) fn read(
    model: &Llama,
    turns: &mut [&mut Turn<'_>],
    states: States,
    choose: fn(&mut Turn<'_>, &[f32]),
    workspace: &mut Workspace,
) {
    let id = |turn: &Turn<'_>| turn.speculation.head().map(DraftHead::id);
    turns.sort_by_key(|turn| id(turn));
    for group in turns.chunk_by_mut(|one, other| id(one) == id(other)) {
        let (start, mut counts) = (Instant::now(), Vec::with_capacity(group.len()));
        let Workspace { scratch, rows, logits, times } = workspace;
        rows.clear();
        for turn in group.iter_mut() {
            let (hidden, range) = states(turn);
            counts.push(range.len());
            rows.append(hidden, range);
        }
        let all = 0..rows.tokens();
        match group[0].speculation.head() {
            Some(head) => model.draft_logits(head, rows, all.clone(), logits, scratch),
            None => model.head(rows, all.clone(), logits, scratch),
        }
        let vocab = model.config().vocab_size;
        let mut rest = &logits[..];
        let mut jobs = Vec::with_capacity(group.len());
        for (turn, count) in group.iter_mut().zip(counts) {
            let (own, others) = rest.split_at(count * vocab);
            rest = others;
            jobs.push((turn, own));
        }
        let threads = if jobs.len() > 1 { pool::threads() } else { 1 };
        team::share(threads, jobs.into_iter(), |(turn, logits)| choose(turn, logits));
        times.push(CallTime { call: Call::DraftHead, rows: all.end, seconds: start.elapsed().as_secs_f64() });
    }
}

/// Asks the exits that are probed what they would have chosen after each token of the drafts.
pub(super) fn probe(model: &Arc<Llama>, turns: &mut [Turn<'_>], workspace: &mut Workspace) -> Result<()> {
    let probing = |turn: &&mut Turn<'_>| turn.drafts && turn.plan.probe.is_some();
    let climbers = turns.iter_mut().filter(probing).filter_map(|turn| turn.session.probe_climber());
    climb(model, &mut climbers.collect::<Vec<_>>(), workspace)?;
    let mut probing: Vec<_> = turns.iter_mut().filter(probing).collect();
    let states: States = |turn| {
        let probed = turn.session.probed();
        (probed, 0..probed.tokens())
    };
    read(model, &mut probing, states, |turn, logits| turn.choose_probed(logits), workspace);
    Ok(())
}

impl Turn<'_> {
    /// Whether to draft one more token, beside `drafting` texts that may.
    pub(super) fn goes_on(&mut self, drafting: usize) -> bool {
        self.draft.len() < self.plan.num_speculations
            && self.speculation.goes_on(&self.plan, self.draft.len() + 1, self.chance, drafting)
    }

    /// Chooses the token that follows the draft. A draft may fail where the full model does not.
    pub(super) fn choose_next(&mut self, logits: &[f32]) {
        let (chooser, tokens) = (&mut self.progress.chooser, self.session.tokens());
        let choice = match self.adaptive {
            true => chooser.choose_draft(logits, tokens),
            false => chooser.choose(logits, tokens), // nobody asks how sure it is
        };
        self.chosen = choice.ok();
    }

    /// Chooses what the exit that is probed says after each token of the draft.
    fn choose_probed(&mut self, logits: &[f32]) {
        let (before, vocab) = (self.session.before(), self.session.model().config().vocab_size);
        for (row, logits) in logits.chunks_exact(vocab).enumerate() {
            let tokens = &self.session.tokens()[..=before + row];
            let Ok(choice) = self.progress.chooser.choose_draft(logits, tokens) else { break };
            self.probed.push(choice);
        }
    }

    /// Takes the token that was chosen, if it is worth verifying; whether something is to follow it.
    pub(super) fn takes(&mut self, drafting: usize) -> bool {
        let Some(choice) = self.chosen.take() else { return false };
        self.chance *= self.speculation.chance(&self.plan, choice.sure);
        if !self.speculation.keeps(&self.plan, self.draft.len() + 1, self.chance, drafting) {
            self.dropped = Some(choice);
            return false;
        }
        self.draft.push(choice);
        !self.progress.chooser.stops_at(choice.token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::completion::GenerateOptions;
    use crate::progress::Progress;
    use crate::sampler::SamplingOptions;
    use crate::session::Session;
    use crate::speculate::{Draft, Drafter, Plan, Speculation};
    use crate::step::turn::{Text, Turn};
    use crate::step::{begin, step};
    use offramp_model::{Config, Formats};
    use std::path::Path;

    /// One text looks at an exit on its way to the depth that drafts, another does not, a third drafts
    /// deeper.
    #[test]
    fn every_drafted_token_arrives_once() {
        let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "vocab_size": 61,
            "num_hidden_layers": 6, "num_attention_heads": 2, "max_position_embeddings": 64}"#;
        let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
        let model = Arc::new(Llama::random(config, 1, &Formats::default()).expect("a small model"));
        let sampling = SamplingOptions::default();
        let options = GenerateOptions { max_new_tokens: 20, sampling, ..GenerateOptions::default() };
        let (plans, mut workspace) = ([(4, Some(2)), (4, None), (5, Some(3))], Workspace::new());
        let mut owned: Vec<_> = plans
            .iter()
            .map(|&(exit_layer, _)| {
                let session = Session::new(&model, 40).expect("memory");
                let speculation = Speculation::fixed(Draft { exit_layer, num_speculations: 3 });
                let progress = Progress::new(&session, &[1, 2, 3], &options, &speculation);
                (session, speculation, progress.expect("a good prompt"))
            })
            .collect();
        let mut texts: Vec<Text<'_>> = owned
            .iter_mut()
            .map(|(session, speculation, progress)| Text { session, speculation, progress })
            .collect();
        step(&mut texts, usize::MAX, &mut workspace).expect("memory");
        let mut turns: Vec<Turn<'_>> = begin(&mut texts, usize::MAX, &mut workspace);
        for (turn, (exit_layer, probe)) in turns.iter_mut().zip(plans) {
            turn.plan = Plan { drafter: Drafter::own(exit_layer), num_speculations: 3, probe };
            turn.drafts = true;
        }
        draft(&model, &mut turns, &mut workspace).expect("memory");
        probe(&model, &mut turns, &mut workspace).expect("memory");
        for (turn, (_, probe)) in turns.iter().zip(plans) {
            assert_eq!((turn.draft.len(), turn.session.in_flight().tokens()), (3, 4));
            assert_eq!(turn.probed.len(), if probe.is_some() { 4 } else { 0 });
        }
    }
}
