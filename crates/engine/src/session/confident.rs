//! A session with a confidence exit.

use super::Session;
use crate::Result;
use crate::confidence::{ConfidenceExit, Depths};
use crate::confident::Confident;
use offramp_model::Scratch;

impl Session {
    /// Lets tokens that are fed one at a time leave where an exit is sure; `None` lets none. Prompts, tokens
    /// that come together, and a token that comes while earlier ones have yet to be run at this depth, go the
    /// whole way.
    ///
    /// This is lossy: as long as it is set, logits after a token that left depend on where it and those
    /// before it left, too. Any call ends that: tokens that left, and those after them, are run again with
    /// the next token, and from then on (with `None`) the logits are those of a session without this policy,
    /// bit for bit. [`Session::depths`] begins anew.
    ///
    /// # Errors
    /// If the exits are none, do not ascend or are not all below the session's depth, or if the threshold is
    /// not a number; then the session is as it was.
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

    /// How deep the tokens went that might have left, since the confidence exit was set; `None` where none
    /// is.
    pub fn depths(&self) -> Option<&Depths> {
        self.confident.as_ref().map(|confident| &confident.depths)
    }

    /// Positions whose keys and values are the full model's, at most `len`: those before the first token that
    /// left.
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

    /// Whether the next token may leave: there is a policy, and every token so far has been run at this depth
    /// or left.
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
