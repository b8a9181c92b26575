//! Quantizes the tokens of a call to int8, with a scale for each block.

#[cfg(test)]
mod tests;

use super::block_quantized::{BlockQuantized, FEW, TokenMut};
use super::layout::StripFormat;
use crate::aligned::Aligned;
use crate::table::{TILE_TOKENS, Table};
use crate::team;

/// Makes [`BlockQuantized`] tokens in buffers that are kept from call to call.
#[derive(Clone, Debug, Default)]
pub struct BlockQuantizer {
    codes: Aligned<i8>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
    blocks: usize,
    places: usize,
    block: usize,
    zero: i32,
}

impl BlockQuantizer {
    /// Quantizes `x` `[tokens, in_features]` as the other factor of `codes`.
    ///
    /// # Panics
    /// If `x` has not this shape.
    pub fn quantize(&mut self, table: &Table, format: StripFormat, x: &[f32], in_features: usize) {
        self.quantize_on(1, table, format, x, in_features);
    }

    /// As [`BlockQuantizer::quantize`], on some threads.
    pub(crate) fn quantize_on(
        &mut self,
        threads: usize,
        table: &Table,
        format: StripFormat,
        x: &[f32],
        in_features: usize,
    ) {
        assert!(in_features > 0 && x.len().is_multiple_of(in_features), "x is [tokens, {in_features}]");
        let (tokens, blocks, block) = (x.len() / in_features, format.blocks(in_features), format.block());
        let places = if tokens > FEW { tokens.next_multiple_of(TILE_TOKENS) } else { tokens };
        (self.blocks, self.places, self.block, self.zero) = (blocks, places, block, format.zero());
        let all = self.codes.resize(blocks * places * block);
        self.scales.resize(blocks * places, 0.0);
        self.offsets.resize(blocks * places, 0);
        // Some blocks of all tokens at a time.
        let some = if threads > 1 { 4 } else { blocks };
        let scales = self.scales.chunks_mut(some * places).zip(self.offsets.chunks_mut(some * places));
        let parts = all.chunks_mut(some * places * block).zip(scales).enumerate();
        team::share(threads, parts, |(part, (codes_of_all, (scales, offsets)))| {
            let columns = part * some * block..in_features.min((part + 1) * some * block);
            for (token, x) in x.chunks_exact(in_features).enumerate() {
                let out = TokenMut {
                    codes: &mut codes_of_all[token * block..],
                    scales: &mut scales[token..],
                    offsets: &mut offsets[token..],
                    places,
                };
                (table.quantize_token)(&x[columns.clone()], format, out);
            }
        });
    }

    /// The tokens of the last call.
    pub fn tokens(&self) -> BlockQuantized<'_> {
        let Self { codes, scales, offsets, blocks, places, block, zero } = self;
        BlockQuantized {
            codes: codes.values(),
            scales,
            offsets,
            blocks: *blocks,
            places: *places,
            block: *block,
            zero: *zero,
        }
    }
}
