//! Weights in a few bits, in the order in which a processor reads them: one stream.
//!
//! Rows are taken 32 at a time, as a *strip*, and a strip is written block by block: the codes of 32 rows at
//! `block` consecutive k, four k of a row side by side, then the 32 scales. A product walks through the
//! strip from its first byte to its last, multiplies four codes of a row by four codes of the input in one
//! lane, and needs no sum across lanes. `docs/kernels.md` draws it.
//!
//! A weight is `(code − zero) · scale` with a scale per block of a row, in `bf16`: its range is that of
//! `f32`, and the codes are chosen after it was rounded. The input is quantised to int8 with one scale per
//! block of a token, so that a token's result depends on that token alone. A block is summed in `i32`,
//! which is exact in any order; blocks are added in `f32`, in increasing k.

pub(crate) mod lanes;
mod operand;
mod pack;
#[cfg(test)]
mod tests;

pub use operand::{Quantised, Quantiser};
pub(crate) use pack::pack_strip;
pub use pack::{pack, unpack};

pub(crate) use operand::{FEW, Places, quantise};

/// Rows of a strip.
pub const STRIP: usize = 32;
/// Bytes of a block's scales.
pub(crate) const SCALES: usize = STRIP * size_of::<half::bf16>();
/// Consecutive k that share a lane.
pub(crate) const QUAD: usize = 4;

/// How wide the codes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codes {
    /// −127 to 127 in a byte; with its scale 8.25 bits a weight.
    Int8,
    /// −8 to 7, two in a byte; with its scale 4.5 bits a weight.
    Int4,
}

impl Codes {
    /// Consecutive weights of a row that share a scale.
    pub const fn block(self) -> usize {
        match self {
            Self::Int8 => 64,
            Self::Int4 => 32,
        }
    }

    /// Bits of a code.
    pub const fn bits(self) -> usize {
        match self {
            Self::Int8 => 8,
            Self::Int4 => 4,
        }
    }

    /// The stored code of 0: codes are stored without a sign.
    pub const fn zero(self) -> i32 {
        1 << (self.bits() - 1)
    }

    /// Blocks of a row; the last one may be padded.
    pub const fn blocks(self, in_features: usize) -> usize {
        in_features.div_ceil(self.block())
    }

    /// Bytes of one block of a strip.
    pub(crate) const fn block_bytes(self) -> usize {
        STRIP * self.block() * self.bits() / 8 + SCALES
    }

    /// Bytes of one strip.
    pub const fn strip_bytes(self, in_features: usize) -> usize {
        self.blocks(in_features) * self.block_bytes()
    }

    /// Bytes of a matrix; `None` if they cannot be counted.
    pub fn bytes(self, rows: usize, in_features: usize) -> Option<usize> {
        self.blocks(in_features).checked_mul(self.block_bytes())?.checked_mul(rows.div_ceil(STRIP))
    }
}

/// A product of quantised tokens and strips: what a table's kernel is given.
#[derive(Clone, Copy, Debug)]
pub struct Strips<'a> {
    /// What the codes are.
    pub codes: Codes,
    /// The tokens, quantised for these codes.
    pub x: Quantised<'a>,
    /// Whole strips, [`Codes::strip_bytes`] each.
    pub weight: &'a [u8],
}

impl<'a> Strips<'a> {
    /// Checks that tokens, strips and an output `[tokens, rows]` belong together; returns bytes of a strip.
    ///
    /// # Panics
    /// If they do not.
    pub(crate) fn check(&self, tokens: usize, rows: usize) -> usize {
        let bytes = self.x.blocks * self.codes.block_bytes();
        assert_eq!(self.weight.len(), rows.div_ceil(STRIP) * bytes, "strips for {rows} rows");
        self.x.check(self.codes, tokens);
        bytes
    }
}
