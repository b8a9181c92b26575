//! What a table's products are given: the input of some tokens, and some rows of a weight matrix.

use crate::strips::block_quantized::BlockQuantized;
use crate::strips::layout::{STRIP, StripFormat};
use crate::ternary::layout::BLOCK_BYTES;
use crate::ternary::row_quantized::RowQuantized;

/// The factors of a product, both row-major.
#[derive(Clone, Copy, Debug)]
pub struct RowFactors<'a, V> {
    /// `[tokens, in_features]`, or as the table's operand is written
    pub x: &'a [V],
    /// `[rows, in_features]`
    pub weight: &'a [V],
    /// Length of a row of either.
    pub in_features: usize,
}

impl<V> RowFactors<'_, V> {
    /// Checks that the factors belong to an output `[tokens, rows]`.
    ///
    /// # Panics
    /// If they do not.
    pub(crate) fn check(&self, tokens: usize, rows: usize) {
        let k = self.in_features;
        assert!(k > 0, "a product over no features");
        assert_eq!(self.x.len(), tokens * k, "x is [tokens, {k}]");
        assert_eq!(self.weight.len(), rows * k, "weight is [rows, {k}]");
    }
}

/// The factors of a product: quantized tokens, and strips of 8-bit or 4-bit codes.
#[derive(Clone, Copy, Debug)]
pub struct StripFactors<'a> {
    /// The number format of the strips.
    pub format: StripFormat,
    /// The tokens, quantized for this format.
    pub x: BlockQuantized<'a>,
    /// Whole strips, [`StripFormat::strip_bytes`] each.
    pub weight: &'a [u8],
}

impl StripFactors<'_> {
    /// Checks that tokens, strips and an output `[tokens, rows]` belong together; returns bytes of a strip.
    ///
    /// # Panics
    /// If they do not.
    pub(crate) fn check(&self, tokens: usize, rows: usize) -> usize {
        let bytes = self.x.blocks * self.format.block_bytes();
        assert_eq!(self.weight.len(), rows.div_ceil(STRIP) * bytes, "strips for {rows} rows");
        self.x.check(self.format, tokens);
        bytes
    }
}

/// The factors of a product: quantized tokens, and ternary strips.
#[derive(Clone, Copy, Debug)]
pub struct TernaryFactors<'a> {
    /// The tokens.
    pub x: RowQuantized<'a>,
    /// Whole strips, [`strip_bytes`](crate::ternary::strip_bytes) each.
    pub weight: &'a [u8],
    /// The scale of the weights: what a code of 1 stands for.
    pub step: f32,
}

impl TernaryFactors<'_> {
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
