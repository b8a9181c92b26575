//! Ternary weights: −1, 0 or 1 in two bits, one step for the whole matrix (BitNet b1.58, Ma et al. 2024).
//!
//! As in [`strips`](crate::strips), rows are taken 32 at a time and written in the order in which a product reads
//! them; but there are no scales within. A line of 128 bytes holds 32 rows at 16 consecutive k: four bytes of
//! a row side by side, byte i with the codes of k + i, k + 4 + i, k + 8 + i and k + 12 + i in its bits from the
//! lowest on. A stored code is code + 1. `docs/kernels.md` draws it.
//!
//! The input is quantised to whole numbers with one step per token, so that an element is one exact sum in `i32`:
//! `y = (Σ stored · x − Σ x) · (step of the token · step of the weights)`. Any order of summation gives the same bits.

pub(crate) mod lanes;
mod operand;
mod pack;
#[cfg(test)]
mod tests;

pub use operand::{Input, Quantised, Quantiser};
pub use pack::{pack, unpack};

pub(crate) use crate::strips::{FEW, STRIP};

/// Consecutive k of a byte, and of a lane's four bytes.
pub(crate) const QUAD: usize = 4;
/// Codes of a byte: quads of k in a line.
pub(crate) const QUADS: usize = 4;
/// Consecutive k of a line.
pub(crate) const STEP: usize = QUAD * QUADS;
/// Bytes of a line: 32 rows at [`STEP`] k.
pub(crate) const LINE: usize = STRIP * QUAD;
/// Rows are padded to whole blocks of so many k, which is a tile's width.
pub(crate) const BLOCK: usize = 64;
/// Bytes of a strip's block.
pub(crate) const BLOCK_BYTES: usize = BLOCK / STEP * LINE;
/// Four codes of zero.
pub(crate) const ZEROS: u8 = 0b01_01_01_01;

/// Widest rows: twice so many times 128 is a sum that `i32` holds.
pub const MAX_FEATURES: usize = 1 << 22;
const _: () = assert!(MAX_FEATURES * 2 * 128 < 1 << 31);

/// Blocks of a row; the last one may be padded.
pub(crate) const fn blocks(in_features: usize) -> usize {
    in_features.div_ceil(BLOCK)
}

/// Bytes of one strip.
pub const fn strip_bytes(in_features: usize) -> usize {
    blocks(in_features) * BLOCK_BYTES
}

/// Bytes of a matrix; `None` if they cannot be counted.
pub fn bytes(rows: usize, in_features: usize) -> Option<usize> {
    blocks(in_features).checked_mul(BLOCK_BYTES)?.checked_mul(rows.div_ceil(STRIP))
}

/// A product of quantised tokens and ternary strips: what a table's kernel is given.
#[derive(Clone, Copy, Debug)]
pub struct Ternary<'a> {
    /// The tokens.
    pub x: Quantised<'a>,
    /// Whole strips, [`strip_bytes`] each.
    pub weight: &'a [u8],
    /// What a code of the weights counts.
    pub step: f32,
}

impl Ternary<'_> {
    /// Checks that tokens, strips and an output `[tokens, rows]` belong together; returns bytes of a strip.
    ///
    /// # Panics
    /// If they do not.
    pub(crate) fn check(&self, tokens: usize, rows: usize) -> usize {
        let bytes = self.x.blocks * BLOCK_BYTES;
        assert_eq!(self.weight.len(), rows.div_ceil(STRIP) * bytes, "ternary strips for {rows} rows");
        self.x.check(tokens);
        bytes
    }
}
