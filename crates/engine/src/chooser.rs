//! What chooses the tokens of one text, in drafts and after them alike.

use crate::completion::GenerateOptions;
use crate::constraint::Constraint;
use crate::sampler::Sampler;
use crate::speculate::Sureness;
use crate::{Error, Result};
use offramp_kernels::active;

/// A token, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) token: u32,
    pub(crate) sure: Sureness,
}

/// Logits are at least this where their entropy is asked for.
const LEAST: f32 = -1e4;

/// A sampler, and what it may choose.
#[derive(Debug)]
pub(crate) struct Chooser {
    sampler: Sampler,
    /// Ids from here on are never chosen.
    token_limit: Option<usize>,
    stop_tokens: Vec<u32>,
    logit_bias: Vec<(u32, f32)>,
    constraint: Option<Box<dyn Constraint>>,
    /// Tokens before the new ones.
    prompt_tokens: usize,
    logits: Vec<f32>,  // [vocab]
    chances: Vec<f32>, // [vocab]
    allowed: Vec<u32>, // a bit per id
}

impl Chooser {
    /// For the tokens that follow `prompt_tokens` others.
    ///
    /// # Errors
    /// If an option is out of range.
    pub(crate) fn new(options: &GenerateOptions, prompt_tokens: usize) -> Result<Self> {
        Ok(Self {
            sampler: Sampler::new(options.sampling)?.after(prompt_tokens),
            token_limit: options.token_limit,
            stop_tokens: options.stop_tokens.clone(),
            logit_bias: options.logit_bias.clone(),
            constraint: options.constraint.clone(),
            prompt_tokens,
            logits: Vec::new(),
            chances: Vec::new(),
            allowed: Vec::new(),
        })
    }

    /// The token that follows `tokens`, by the logits after the last of them.
    pub(crate) fn choose(&mut self, logits: &[f32], tokens: &[u32]) -> Result<Choice> {
        let choices = self.token_limit.map_or(logits.len(), |limit| limit.min(logits.len()));
        let logits = &logits[..choices];
        if self.logit_bias.is_empty() && self.constraint.is_none() {
            let (token, margin) = self.sampler.next_with_margin(logits, tokens)?;
            return Ok(Choice { token, sure: Sureness { margin, entropy: 0.0 } });
        }
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        for &(id, bias) in &self.logit_bias {
            if let Some(logit) = self.logits.get_mut(id as usize) {
                *logit += bias;
            }
        }
        self.forbid(tokens)?;
        let (token, margin) = self.sampler.next_with_margin(&self.logits, tokens)?;
        Ok(Choice { token, sure: Sureness { margin, entropy: 0.0 } })
    }

    /// As [`Chooser::choose`], and with the entropy of the logits: for a draft, which may be wrong.
    pub(crate) fn choose_draft(&mut self, logits: &[f32], tokens: &[u32]) -> Result<Choice> {
        let mut choice = self.choose(logits, tokens)?;
        self.logits.clear();
        // What a shortlist leaves out has −∞, and 0 · −∞ is no number.
        self.logits.extend(logits.iter().map(|logit| logit.max(LEAST)));
        self.chances.clear();
        self.chances.extend_from_slice(&self.logits);
        let table = active();
        let all = (table.softmax)(&mut self.chances); // ln Σ e^logit
        choice.sure.entropy = (all - (table.dot)(&self.chances, &self.logits)).max(0.0);
        Ok(choice)
    }

    /// Takes away what the constraint does not allow.
    fn forbid(&mut self, tokens: &[u32]) -> Result<()> {
        let Some(constraint) = &mut self.constraint else { return Ok(()) };
        self.allowed.clear();
        self.allowed.resize(self.logits.len().div_ceil(32), 0);
        constraint.allow(&tokens[self.prompt_tokens.min(tokens.len())..], &mut self.allowed);
        let mut some = false;
        for (id, logit) in self.logits.iter_mut().enumerate() {
            match self.allowed[id / 32] >> (id % 32) & 1 {
                0 => *logit = f32::NEG_INFINITY,
                _ => some = true,
            }
        }
        if some { Ok(()) } else { Err(Error::NothingAllowed) }
    }

    pub(crate) fn stops_at(&self, token: u32) -> bool {
        self.stop_tokens.contains(&token)
    }
}
