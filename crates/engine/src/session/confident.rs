//! Tokens that leave a session early because an exit is sure, and what the layers that they skipped learn of them.
//!
//! Tokens to come attend to keys and values in every layer that they reach. Where a token left before a layer, that
//! layer is filled with its own projections of the state in which the token left. No token asks for them before it goes
//! that deep, so the state waits until then, and all that wait are filled in one call that reads the weights once.
//! A token's arithmetic does not depend on who shares the call: this equals filling at once, bit for bit.

use super::Session;
use crate::Result;
use crate::confidence::{ConfidenceExit, Depths};
use crate::score::gap;
use offramp_model::{Batch, Hidden, KvCache, Llama, Scratch};
use std::ops::Range;

/// A confidence exit in force.
#[derive(Debug)]
pub(crate) struct Confident {
    exit: ConfidenceExit,
    depth: usize, // layers of the session
    /// Per exit, the states of the newest tokens, which the layers from there to the next exit have not seen: they left
    /// at this exit or one before. What these layers hold and what waits are all of the tokens.
    waiting: Vec<Hidden>,
    first_left: Option<usize>, // a position: from here on, deeper layers are not what the full model's were
    next: usize,               // the position of the token that may leave
    pub(super) left_at: usize,
    pub(super) depths: Depths,
    /// Of the token that left last, until they are read: `[vocab]`.
    pub(super) logits: Vec<f32>,
}

impl Confident {
    fn new(exit: ConfidenceExit, depth: usize) -> Self {
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
    pub(super) fn expect(&mut self, position: usize) {
        self.next = position;
        self.logits.clear();
    }

    /// Layers up to the next exit from `index` exits on.
    fn layers(&self, index: usize) -> Range<usize> {
        let end = self.exit.exits.get(index).copied().unwrap_or(self.depth);
        index.checked_sub(1).map_or(0, |before| self.exit.exits[before])..end
    }

    /// Tokens that `layer` has yet to be filled with.
    fn waiting_before(&self, layer: usize) -> usize {
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

    /// Whether the token whose state after `depth` layers is `hidden` leaves there, by its `logits`; then it is noted.
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
    pub(super) fn cut(&mut self, len: usize, cache: &KvCache) {
        for (waiting, &exit) in self.waiting.iter_mut().zip(&self.exit.exits) {
            let kept = len.saturating_sub(cache.len(exit)).min(waiting.tokens());
            waiting.truncate(kept);
        }
        self.first_left = self.first_left.filter(|&first| first < len);
    }
}

impl Session {
    /// Lets tokens that are fed one at a time leave where an exit is sure; `None` lets none. Prompts, tokens that come
    /// together, and a token that comes while earlier ones have yet to be run at this depth, go the whole way.
    ///
    /// This is lossy: as long as it is set, logits after a token that left depend on where it and those before it left,
    /// too. Any call ends that: tokens that left, and those after them, are run again with the next token, and from then
    /// on (with `None`) the logits are those of a session without this policy, bit for bit. [`Session::depths`] begins
    /// anew.
    ///
    /// # Errors
    /// If the exits are none, do not ascend or are not all below the session's depth, or if the threshold is not a number;
    /// then the session is as it was.
    pub fn set_confidence_exit(&mut self, exit: Option<ConfidenceExit>) -> Result<()> {
        exit.as_ref().map_or(Ok(()), |exit| exit.check(self.exit_layer))?;
        self.recall();
        self.confident = exit.map(|exit| Confident::new(exit, self.exit_layer));
        Ok(())
    }

    /// The confidence exit in force.
    pub fn confidence_exit(&self) -> Option<&ConfidenceExit> {
        self.confident.as_ref().map(|confident| &confident.exit)
    }

    /// Layers that the newest token took: as many as the session runs, unless it left at a confidence exit.
    pub fn left_at(&self) -> usize {
        self.confident.as_ref().map_or(self.exit_layer, |confident| confident.left_at)
    }

    /// How deep the tokens went that might have left, since the confidence exit was set; `None` where none is.
    pub fn depths(&self) -> Option<&Depths> {
        self.confident.as_ref().map(|confident| &confident.depths)
    }

    /// Positions whose keys and values are the full model's, at most `len`: those before the first token that left.
    pub(crate) fn exact(&self, len: usize) -> usize {
        self.confident.as_ref().and_then(|confident| confident.first_left).map_or(len, |first| first.min(len))
    }

    /// Forgets what tokens that left early have brought into the cache: they will be run again.
    pub(super) fn recall(&mut self) {
        if let Some(first) = self.confident.as_ref().and_then(|confident| confident.first_left) {
            self.cut(first);
        }
        if let Some(confident) = &mut self.confident {
            confident.depth = self.exit_layer;
        }
    }

    /// Whether the next token may leave: there is a policy, and every token so far has been run at this depth or left.
    pub(super) fn may_leave(&self) -> bool {
        let held = self.tokens.len();
        let holds =
            |confident: &Confident, layer| self.cache.len(layer) + confident.waiting_before(layer) == held;
        self.confident.as_ref().is_some_and(|confident| (0..self.exit_layer).all(|l| holds(confident, l)))
    }

    /// Fills every layer with all that waits: tokens come that go the whole way.
    pub(super) fn fill_all(&mut self, scratch: &mut Scratch) -> Result<()> {
        let Self { model, cache, confident: Some(confident), .. } = self else { return Ok(()) };
        for index in 0..confident.waiting.len() {
            confident.fill_from(confident.exit.exits[index], model, cache, scratch)?;
        }
        Ok(())
    }
}
