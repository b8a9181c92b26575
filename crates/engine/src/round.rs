//! What came of one text in one step.

use crate::completion::Origin;
use crate::logprobs::Logprobs;

/// What came of one text in one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Round {
    /// How the text goes on: the accepted part of the draft, then one token that only the full model chose,
    /// unless a stop token ended the draft before.
    pub(crate) tokens: Vec<u32>,
    /// How likely they are, where that was asked for.
    pub(crate) logprobs: Vec<Logprobs>,
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
