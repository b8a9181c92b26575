//! What may come next in a text, such as by a grammar.

use std::fmt::Debug;

/// Says which tokens may follow those of a new text. It is asked about drafts, too, which may turn out
/// otherwise: in any order, and about the same tokens again.
pub trait Constraint: Debug + Send {
    /// Marks in `allowed` what may follow the new `tokens`: the bit `id % 32` of word `id / 32`. It has a
    /// word for every 32 ids of the vocabulary, and nothing is marked yet.
    fn allow(&mut self, tokens: &[u32], allowed: &mut [u32]);

    /// Another that says the same.
    fn duplicate(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.duplicate()
    }
}
