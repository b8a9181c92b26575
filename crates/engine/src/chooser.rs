//! What chooses the tokens of one text, in drafts and after them alike.

use crate::Result;
use crate::sampler::Sampler;

/// A token, and by how much it came before the second ([`Sampler::next_with_margin`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    pub(crate) token: u32,
    pub(crate) margin: f32,
}

/// A sampler, and what it may choose.
#[derive(Debug)]
pub(crate) struct Chooser {
    pub(crate) sampler: Sampler,
    /// Ids from here on are never chosen.
    pub(crate) token_limit: Option<usize>,
    pub(crate) stop_tokens: Vec<u32>,
}

impl Chooser {
    /// The token that follows `tokens`, by the logits after the last of them.
    pub(crate) fn choose(&mut self, logits: &[f32], tokens: &[u32]) -> Result<Choice> {
        let choices = self.token_limit.map_or(logits.len(), |limit| limit.min(logits.len()));
        let (token, margin) = self.sampler.next_with_margin(&logits[..choices], tokens)?;
        Ok(Choice { token, margin })
    }

    pub(crate) fn stops_at(&self, token: u32) -> bool {
        self.stop_tokens.contains(&token)
    }
}
