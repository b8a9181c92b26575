//! Tokens that leave a session early because an exit is sure, and what the layers that they skipped learn of
//! them.
//!
//! Tokens to come attend to keys and values in every layer that they reach. Where a token left before a
//! layer, that layer is filled with its own projections of the state in which the token left. No token asks
//! for them before it goes that deep, so the state waits until then, and all that wait are filled in one call
//! that reads the weights once. A token's arithmetic does not depend on who shares the call: this equals
//! filling at once, bit for bit.

use crate::Result;
use crate::confidence::{ConfidenceExit, Depths};
use crate::score::gap;
use offramp_model::{Batch, Hidden, KvCache, Llama, Scratch};
use std::ops::Range;

/// A confidence exit in force: what leaves, and what waits.
#[derive(Debug)]
pub(crate) struct Confident {
    pub(crate) exit: ConfidenceExit,
    pub(crate) depth: usize, // layers of the session
    /// Per exit, the states of the newest tokens, which the layers from there to the next exit have not seen:
    /// they left at this exit or one before. What these layers hold and what waits are all of the tokens.
    pub(crate) waiting: Vec<Hidden>,
    pub(crate) first_left: Option<usize>, // a position: from here on, deeper layers are not what the full model's were
    next: usize,                          // the position of the token that may leave
    pub(crate) left_at: usize,
    pub(crate) depths: Depths,
    /// Of the token that left last, until they are read: `[vocab]`.
    pub(crate) logits: Vec<f32>,
}

impl Confident {
    pub(crate) fn new(exit: ConfidenceExit, depth: usize) -> Self {
        Self {
            depth,
            waiting: vec![Hidden::default(); exit.exits.len()],
            first_left: None,
            next: 0,
            left_at: depth,
            depths: Depths::new(exit.exits.iter().copied().chain([depth])),
            logits: Vec::new(),
            exit,
        }
    }

    /// Layers after which a token may leave.
    pub(crate) fn exits(&self) -> &[usize] {
        &self.exit.exits
    }

    /// The position of the token that may leave next.
    pub(crate) fn expect(&mut self, position: usize) {
        self.next = position;
        self.logits.clear();
    }

    /// Layers up to the next exit from `index` exits on.
    fn layers(&self, index: usize) -> Range<usize> {
        let end = self.exit.exits.get(index).copied().unwrap_or(self.depth);
        index.checked_sub(1).map_or(0, |before| self.exit.exits[before])..end
    }

    /// Tokens that `layer` has yet to be filled with.
    pub(crate) fn waiting_before(&self, layer: usize) -> usize {
        let below = self.exit.exits.iter().rposition(|&exit| exit <= layer);
        below.map_or(0, |index| self.waiting[index].tokens())
    }

    /// Fills the layers from an exit to the next one with what waits there, if `depth` is an exit.
    pub(crate) fn fill_from(
        &mut self,
        depth: usize,
        model: &Llama,
        cache: &mut KvCache,
        scratch: &mut Scratch,
    ) -> Result<()> {
        let Some(index) = self.exit.exits.iter().position(|&exit| exit == depth) else { return Ok(()) };
        let layers = self.layers(index + 1);
        model.fill(layers, &self.waiting[index], &mut Batch::one(cache), scratch)?;
        self.waiting[index].clear();
        Ok(())
    }

    /// Whether the token whose state after `depth` layers is `hidden` leaves there, by its `logits`; then it
    /// is noted.
    pub(crate) fn leaves(&mut self, depth: usize, logits: &[f32], hidden: &Hidden) -> bool {
        let Some(index) = self.exit.exits.iter().position(|&exit| exit == depth) else { return false };
        if !self.exit.leaves(gap(logits)) {
            return false;
        }
        self.waiting[index..].iter_mut().for_each(|waiting| waiting.append(hidden, 0..1));
        self.first_left.get_or_insert(self.next);
        self.logits.clear();
        self.logits.extend_from_slice(logits);
        true
    }

    /// Forgets what waits from position `len` on; `cache` has not forgotten yet.
    pub(crate) fn cut(&mut self, len: usize, cache: &KvCache) {
        for (waiting, &exit) in self.waiting.iter_mut().zip(&self.exit.exits) {
            let kept = len.saturating_sub(cache.len(exit)).min(waiting.tokens());
            waiting.truncate(kept);
        }
        self.first_left = self.first_left.filter(|&first| first < len);
    }
}
