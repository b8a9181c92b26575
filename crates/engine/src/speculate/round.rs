//! One round: a draft, its verification, and what came of it.

use super::adaptive::Adaptive;
use crate::Result;
use crate::generate::Origin;
use crate::sampler::Sampler;
use crate::session::Session;
use offramp_model::DraftHead;
use std::time::Instant;

/// What a round is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Layers that draft.
    pub(crate) exit_layer: usize,
    /// Tokens that are drafted, at most; with 0 this is plain decoding.
    pub(crate) num_speculations: usize,
    /// An exit that is asked what it would have said.
    pub(crate) probe: Option<usize>,
}

/// A token, and its margin.
type Choice = (u32, f32);

/// A draft, and one more token that was not worth verifying.
struct Drafted {
    draft: Vec<Choice>,
    dropped: Option<Choice>,
}

/// An exit's choice beside the full model's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Seen {
    pub(crate) exit_layer: usize,
    pub(crate) margin: f32,
    pub(crate) equal: bool,
}

/// What came of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// How the text goes on: the accepted part of the draft, then one token that only the full model chose, unless a
    /// stop token ended the draft before.
    pub(crate) tokens: Vec<u32>,
    /// Tokens that were drafted and verified.
    pub(crate) drafted: usize,
    /// Those of them that the full model chose too, up to the first that it did not.
    pub(crate) accepted: usize,
}

impl Round {
    /// How its token at `index` came about.
    pub(crate) fn origin(&self, index: usize) -> Origin {
        match index {
            _ if index < self.accepted => Origin::Accepted,
            _ if index < self.drafted => Origin::Corrected,
            _ => Origin::Chosen,
        }
    }
}

/// What chooses tokens, in drafts and after them alike.
#[derive(Debug)]
pub(crate) struct Chooser<'a> {
    pub(crate) sampler: Sampler,
    /// Ids from here on are never chosen.
    pub(crate) token_limit: Option<usize>,
    pub(crate) stop_tokens: &'a [u32],
}

impl Chooser<'_> {
    /// The token that follows `tokens`, by the logits after the last of them, and its margin.
    pub(crate) fn choose(&mut self, logits: &[f32], tokens: &[u32]) -> Result<Choice> {
        let choices = self.token_limit.map_or(logits.len(), |limit| limit.min(logits.len()));
        self.sampler.next_with_margin(&logits[..choices], tokens)
    }
}

/// Who takes part in a round.
#[derive(Debug)]
pub(crate) struct Speakers<'a, 'm, 'c> {
    pub(crate) session: &'a mut Session<'m>,
    pub(crate) chooser: &'a mut Chooser<'c>,
    pub(crate) head: Option<&'a DraftHead>,
    pub(crate) adaptive: Option<&'a mut Adaptive>,
}

impl Speakers<'_, '_, '_> {
    /// One round after `newest`, a token that the session does not hold yet. Afterwards it holds `newest` and all of
    /// the round's tokens but the last; or, if it fails, what it held before.
    pub(crate) fn round(&mut self, newest: u32, plan: Plan) -> Result<Round> {
        let before = self.session.tokens().len();
        let round = self.attempt(newest, plan);
        if round.is_err() {
            self.session.truncate(before);
        }
        round
    }

    fn attempt(&mut self, newest: u32, plan: Plan) -> Result<Round> {
        let before = self.session.tokens().len();
        self.session.begin_draft(plan.exit_layer, plan.probe)?;
        let Drafted { draft, dropped } = self.draft(newest, plan)?;
        let probed = if plan.probe.is_some() { self.probe(before)? } else { Vec::new() };
        let round = self.verify(before, &draft)?;
        if let Some(adaptive) = &mut self.adaptive {
            let compared = draft.iter().chain(&dropped).map(|choice| (plan.exit_layer, choice));
            let probed = probed.iter().map(|choice| (plan.probe.unwrap_or(0), choice));
            // Only as far as both continue the same text.
            let beside = |((exit_layer, choice), token): ((usize, &Choice), &u32)| Seen {
                exit_layer,
                margin: choice.1,
                equal: choice.0 == *token,
            };
            let mut seen: Vec<_> = compared.zip(&round.tokens).map(beside).collect();
            seen.extend(probed.zip(&round.tokens).map(beside));
            let heads = draft.len() + usize::from(dropped.is_some());
            adaptive.learn(plan, (self.session.draft_len(), heads), &seen, round.tokens.len());
        }
        Ok(round)
    }

    fn draft(&mut self, newest: u32, plan: Plan) -> Result<Drafted> {
        let (mut draft, mut chance) = (Vec::with_capacity(plan.num_speculations), 1.0);
        self.extend(newest, plan.exit_layer)?;
        while draft.len() < plan.num_speculations {
            let rows = draft.len() + 1;
            if self.adaptive.as_mut().is_some_and(|a| !a.goes_on(plan.exit_layer, rows, chance)) {
                break;
            }
            let start = Instant::now();
            self.session.draft_logits(self.head);
            // A draft may fail where the full model does not.
            let chosen = self.chooser.choose(self.session.logits(), self.session.tokens());
            let Ok(choice) = chosen else { break };
            if let Some(adaptive) = &mut self.adaptive {
                adaptive.costs().saw_draft_head(start.elapsed().as_secs_f64());
                chance *= adaptive.chance(plan.exit_layer, choice.1);
                if !adaptive.keeps(plan.exit_layer, rows, chance) {
                    return Ok(Drafted { draft, dropped: Some(choice) });
                }
            }
            draft.push(choice);
            if self.chooser.stop_tokens.contains(&choice.0) {
                break; // nobody asks what follows
            }
            self.extend(choice.0, plan.exit_layer)?;
        }
        Ok(Drafted { draft, dropped: None })
    }

    fn extend(&mut self, token: u32, exit_layer: usize) -> Result<()> {
        let start = Instant::now();
        self.session.extend_draft(token)?;
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.costs().saw_layers(exit_layer, 1, start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// What the exit that is probed would have said after each token of the draft.
    fn probe(&mut self, before: usize) -> Result<Vec<Choice>> {
        let rows = self.session.draft_len();
        self.session.probe_logits(self.head)?;
        let logits = self.session.logits();
        let vocab = logits.len() / rows;
        let mut choices = Vec::with_capacity(rows);
        for (row, logits) in logits.chunks_exact(vocab).enumerate() {
            let Ok(choice) = self.chooser.choose(logits, &self.session.tokens()[..=before + row]) else {
                break;
            };
            choices.push(choice);
        }
        Ok(choices)
    }

    /// Compares a draft, whose first token stands at position `before + 1`, with the full model's choices.
    fn verify(&mut self, before: usize, draft: &[Choice]) -> Result<Round> {
        let (rows, layers) = (self.session.draft_len(), self.session.layers_above());
        let start = Instant::now();
        self.session.verify_layers()?;
        let raised = Instant::now();
        self.session.verify_logits();
        let mut round = Round { drafted: draft.len(), ..Round::default() };
        for row in 0..rows {
            let vocab = self.session.logits().len() / rows;
            let logits = &self.session.logits()[row * vocab..][..vocab];
            let token = match self.chooser.choose(logits, &self.session.tokens()[..=before + row]) {
                Ok((token, _)) => token,
                Err(_) if row > 0 => break, // plain decoding says what came before, and so does this
                Err(error) => return Err(error),
            };
            round.tokens.push(token);
            if draft.get(row).is_none_or(|choice| choice.0 != token) {
                break;
            }
            round.accepted += 1;
        }
        if let Some(adaptive) = &mut self.adaptive {
            adaptive.costs().saw_layers(layers, rows, (raised - start).as_secs_f64());
            adaptive.costs().saw_head(rows, raised.elapsed().as_secs_f64());
        }
        self.session.truncate(before + round.tokens.len());
        Ok(round)
    }
}
