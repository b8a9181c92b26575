//! Tokens as whole numbers with one scale each: how they lie.

use super::layout::BLOCK;

/// Tokens in whole numbers. What a product reads together lies together.
#[derive(Clone, Copy, Debug)]
pub struct RowQuantized<'a> {
    pub(super) codes: &'a [i8],    // [groups, blocks, group, BLOCK]
    pub(super) steps: &'a [f32],   // [groups · group]
    pub(super) offsets: &'a [i32], // [groups · group]: −Σ codes, where a sum begins
    pub(crate) blocks: usize,
    /// Tokens of a group: all if they are few, else those of a tile.
    pub(crate) group: usize,
}

impl<'a> RowQuantized<'a> {
    /// # Panics
    /// If these are not so many tokens.
    pub(crate) fn check(&self, tokens: usize) {
        let places = self.steps.len();
        assert!(
            tokens <= places && places < tokens + self.group.max(1),
            "{tokens} tokens in {places} places"
        );
        assert_eq!(self.codes.len(), places * self.blocks * BLOCK, "codes of {places} tokens");
        assert_eq!(self.offsets.len(), places, "offsets of {places} tokens");
    }

    /// The codes of a block, from a token on. Those of the next tokens of its group follow.
    pub(crate) fn codes(&self, block: usize, token: usize) -> &'a [i8] {
        let (group, place) = (token / self.group, token % self.group);
        &self.codes[((group * self.blocks + block) * self.group + place) * BLOCK..]
    }

    /// The steps from a token on.
    pub(crate) fn steps(&self, token: usize) -> &'a [f32] {
        &self.steps[token..]
    }

    /// The offsets from a token on.
    pub(crate) fn offsets(&self, token: usize) -> &'a [i32] {
        &self.offsets[token..]
    }
}
