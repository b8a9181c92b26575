//! Tokens that leave a session early because an exit is sure, and what the layers that they skipped learn of them.
//!
//! Tokens to come attend to keys and values in every layer that they reach. Where a token left before a layer, that
//! layer is filled with its own projections of the state in which the token left. Nobody asks for them before a token
//! goes that deep, so the state waits until then, and all that wait are filled in one call that reads the weights once.
//! A token's arithmetic does not depend on who shares the call: this is filling at once, bit for bit.

use super::Session;
use crate::confidence::{ConfidenceExit, Depths};
use crate::score::gap;
use crate::{Error, Result};
use offramp_model::{Hidden, KvCache, Llama, Work};
use std::ops::Range;

/// A confidence exit in force.
#[derive(Debug)]
pub(super) struct Confident {
    exit: ConfidenceExit,
    /// Per exit, the states of the newest tokens, which the layers from there to the next exit have not seen: they left
    /// at this exit or one before. What these layers hold and what waits are all of the tokens.
    waiting: Vec<Hidden>,
    first_left: Option<usize>, // a position: from here on, deeper layers are not what the full model's were
    pub(super) left_at: usize,
    depths: Depths,
}

impl Confident {
    /// Layers up to the next exit from `index` exits on, of `depth` in all.
    fn layers(&self, index: usize, depth: usize) -> Range<usize> {
        let end = self.exit.exits.get(index).copied().unwrap_or(depth);
        index.checked_sub(1).map_or(0, |before| self.exit.exits[before])..end
    }

    /// Tokens that `layer` has yet to be filled with.
    fn waiting_before(&self, layer: usize) -> usize {
        let below = self.exit.exits.iter().rposition(|&exit| exit <= layer);
        below.map_or(0, |index| self.waiting[index].tokens())
    }

    /// Fills the `layers` from `index` exits on with what waits before them; the work.
    fn fill(
        &mut self,
        index: usize,
        layers: Range<usize>,
        model: &Llama,
        cache: &mut KvCache,
    ) -> Result<Work> {
        let Some(waiting) = index.checked_sub(1).map(|below| &mut self.waiting[below]) else {
            return Ok(Work::default()); // every token goes to the first exit
        };
        let work = model.fill_work(layers.clone(), waiting.tokens());
        model.fill(layers, waiting, cache)?;
        waiting.clear();
        Ok(work)
    }

    /// Forgets what waits from position `len` on; `cache` has not forgotten yet.
    pub(super) fn cut(&mut self, len: usize, cache: &KvCache) {
        for (waiting, &exit) in self.waiting.iter_mut().zip(&self.exit.exits) {
            waiting.truncate(len.saturating_sub(cache.len(exit)));
        }
        self.first_left = self.first_left.filter(|&first| first < len);
    }
}

impl Session<'_> {
    /// Lets tokens that are fed one at a time leave where an exit is sure; `None` lets none. Prompts, tokens that come
    /// together, and a token that comes while earlier ones have yet to be run at this depth, go the whole way.
    ///
    /// This is lossy: as long as it is set, logits after a token that left depend on where it and those before it left,
    /// too. Any call ends that: tokens that left, and those after them, are run again with the next token, and from then on
    /// (with `None`) the logits are those of a session without this policy, bit for bit. [`Session::depths`] begins anew.
    ///
    /// # Errors
    /// If the exits are none, do not ascend or are not all below the session's depth, or if the threshold is not a number;
    /// then the session is as it was.
    pub fn set_confidence_exit(&mut self, exit: Option<ConfidenceExit>) -> Result<()> {
        exit.as_ref().map_or(Ok(()), |exit| exit.check(self.exit_layer))?;
        self.recall();
        self.confident = exit.map(|exit| Confident {
            waiting: vec![self.model.new_hidden(); exit.exits.len()],
            first_left: None,
            left_at: self.exit_layer,
            depths: Depths::new(exit.exits.iter().copied().chain([self.exit_layer])),
            exit,
        });
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

    /// Forgets what tokens that left early have brought into the cache: they will be run again.
    pub(super) fn recall(&mut self) {
        if let Some(first) = self.confident.as_ref().and_then(|confident| confident.first_left) {
            self.cut(first);
        }
    }

    /// Whether the next token may leave: there is a policy, and every token so far has been run at this depth or left.
    pub(super) fn may_leave(&self) -> bool {
        let held = self.tokens.len();
        let holds =
            |confident: &Confident, layer| self.cache.len(layer) + confident.waiting_before(layer) == held;
        self.confident.as_ref().is_some_and(|confident| (0..self.exit_layer).all(|l| holds(confident, l)))
    }

    /// Appends a token and runs it until an exit is sure, or at full depth; the logits there.
    pub(super) fn decode(&mut self, token: u32) -> Result<&[f32]> {
        let before = self.tokens.len();
        if before == self.capacity() {
            return Err(Error::ContextFull { tokens: before + 1, context: self.capacity() });
        }
        let Some(mut confident) = self.confident.take() else { return self.run(&[token], 1) };
        let climbed = self.climb(token, &mut confident);
        if let Ok(depth) = climbed {
            self.tokens.push(token);
            confident.left_at = depth;
            confident.depths.count(depth);
        }
        self.confident = Some(confident);
        if let Err(error) = climbed {
            self.cut(before); // the layers below the one that failed have seen it
            return Err(error);
        }
        Ok(&self.logits)
    }

    /// Runs a token up to where it leaves and computes its logits there; the depth.
    fn climb(&mut self, token: u32, confident: &mut Confident) -> Result<usize> {
        let before = self.tokens.len();
        self.model.embed(&[token], &mut self.hidden)?;
        for index in 0..=confident.waiting.len() {
            let layers = confident.layers(index, self.exit_layer);
            self.work += confident.fill(index, layers.clone(), self.model, &mut self.cache)?;
            self.model.forward(layers.clone(), &mut self.hidden, &mut self.cache)?;
            self.model.head(&mut self.hidden, 0..1, &mut self.logits);
            self.work += self.model.forward_work(layers.clone(), 1, before);
            self.work += self.model.head_work(None, 1);
            if layers.end < self.exit_layer && confident.exit.leaves(gap(&self.logits)) {
                confident.waiting[index..].iter_mut().for_each(|waiting| waiting.append(&self.hidden));
                confident.first_left.get_or_insert(before);
                return Ok(layers.end);
            }
        }
        Ok(self.exit_layer)
    }

    /// Fills every layer with all that waits: tokens come that go the whole way.
    pub(super) fn fill_all(&mut self) -> Result<()> {
        let Self { model, exit_layer, cache, confident: Some(confident), work, .. } = self else {
            return Ok(());
        };
        for index in 0..=confident.waiting.len() {
            *work += confident.fill(index, confident.layers(index, *exit_layer), model, cache)?;
        }
        Ok(())
    }
}
