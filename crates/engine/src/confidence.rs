//! When a token leaves because the model is sure of what follows it, and how deep tokens went.
//!
//! This is a lossy policy: what a token that left says is an exit's word, not the full model's, and what the
//! layers that it skipped hold of it is a stand-in (Schuster et al. 2022, CALM). How often the two agree is
//! measured, and the threshold chosen by that: `offramp-eval` calibrates.

use crate::{Error, Result};

/// Leaves at the first of a few exits at which the largest logit leads the second by enough.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfidenceExit {
    /// Layers after which a token may leave: ascending, from 1 on, below the session's depth. At each of them
    /// that a token reaches the head is read, so a few are better than many.
    pub exits: Vec<usize>,
    /// The lead, in logits, with which it does: 0 always leaves at the first, infinity never.
    pub threshold: f32,
}

impl ConfidenceExit {
    /// Whether a session that runs `depth` layers can take it.
    pub(crate) fn check(&self, depth: usize) -> Result<()> {
        let ascending = self.exits.windows(2).all(|pair| pair[0] < pair[1]);
        let (first, last) = (self.exits.first(), self.exits.last());
        if !ascending || first.is_none_or(|&exit| exit == 0) || last.is_none_or(|&exit| exit >= depth) {
            return Err(Error::ConfidenceExits { exits: self.exits.clone(), depth });
        }
        if self.threshold.is_nan() {
            return Err(Error::ConfidenceThreshold);
        }
        Ok(())
    }

    /// Whether a token leaves with such a lead; never if that is no finite number, as where logits overflow.
    pub(crate) fn leaves(&self, gap: f32) -> bool {
        gap.is_finite() && gap >= self.threshold
    }
}

/// How many tokens went how deep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    counts: Vec<(usize, u64)>,
}

impl Depths {
    /// None yet, at any of these depths.
    pub(crate) fn new(depths: impl Iterator<Item = usize>) -> Self {
        Self { counts: depths.map(|depth| (depth, 0)).collect() }
    }

    /// One more token at `depth`.
    pub(crate) fn count(&mut self, depth: usize) {
        match self.counts.binary_search_by_key(&depth, |count| count.0) {
            Ok(index) => self.counts[index].1 += 1,
            Err(index) => self.counts.insert(index, (depth, 1)), // the session's depth has changed
        }
    }

    /// Layers, ascending, and the tokens that took so many and no more.
    pub fn counts(&self) -> &[(usize, u64)] {
        &self.counts
    }

    /// All tokens.
    pub fn tokens(&self) -> u64 {
        self.counts.iter().map(|&(_, tokens)| tokens).sum()
    }

    /// Layers that a token took in the mean; `None` without a token.
    pub fn mean(&self) -> Option<f64> {
        let layers: u64 = self.counts.iter().map(|&(depth, tokens)| depth as u64 * tokens).sum();
        (self.tokens() > 0).then(|| layers as f64 / self.tokens() as f64)
    }
}
