//! The other factor: a few tokens, quantised to int8 block by block.

#[cfg(test)]
mod tests;

use super::Codes;
use crate::aligned::Aligned;
use crate::table::{TILE_TOKENS, Table};
use crate::team;

/// Up to so many tokens it is not made: no table reads them in tiles.
pub(crate) const FEW: usize = 8;

/// Tokens in int8, block by block: what a product reads together lies together.
#[derive(Clone, Copy, Debug)]
pub struct Quantised<'a> {
    codes: &'a [i8],    // [blocks, places, block]
    scales: &'a [f32],  // [blocks, places]
    offsets: &'a [i32], // [blocks, places]: −zero · Σ codes, where a block's sum begins
    pub(crate) blocks: usize,
    /// Tokens that there is room for: whole tiles, if there are many.
    pub(crate) places: usize,
    block: usize,
}

impl<'a> Quantised<'a> {
    /// # Panics
    /// If these are not so many tokens, quantised for `codes`.
    pub(super) fn check(&self, codes: Codes, tokens: usize) {
        let Self { blocks, places, block, .. } = *self;
        assert!(tokens <= places && block == codes.block(), "{tokens} tokens in blocks of {}", codes.block());
        assert_eq!(self.codes.len(), blocks * places * block, "codes of {places} tokens");
        assert!(self.scales.len() == blocks * places && self.offsets.len() == blocks * places, "scales");
    }

    /// The codes of a block from a token on, those of the next ones following.
    pub(crate) fn codes(&self, block: usize, token: usize) -> &'a [i8] {
        &self.codes[(block * self.places + token) * self.block..]
    }

    /// The scales of a block from a token on.
    pub(crate) fn scales(&self, block: usize, token: usize) -> &'a [f32] {
        &self.scales[block * self.places + token..]
    }

    /// The offsets of a block from a token on.
    pub(crate) fn offsets(&self, block: usize, token: usize) -> &'a [i32] {
        &self.offsets[block * self.places + token..]
    }
}

/// Makes [`Quantised`] tokens, in buffers kept from call to call.
#[derive(Clone, Debug, Default)]
pub struct Quantiser {
    codes: Aligned<i8>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
    blocks: usize,
    places: usize,
    block: usize,
}

impl Quantiser {
    /// Quantises `x` `[tokens, in_features]` as the other factor of `codes`.
    ///
    /// # Panics
    /// If `x` has not this shape.
    pub fn quantise(&mut self, table: &Table, codes: Codes, x: &[f32], in_features: usize) {
        self.quantise_on(1, table, (codes, x, in_features));
    }

    /// As [`Quantiser::quantise`], on some threads.
    pub(crate) fn quantise_on(
        &mut self,
        threads: usize,
        table: &Table,
        (codes, x, in_features): (Codes, &[f32], usize),
    ) {
        assert!(in_features > 0 && x.len().is_multiple_of(in_features), "x is [tokens, {in_features}]");
        let (tokens, blocks, block) = (x.len() / in_features, codes.blocks(in_features), codes.block());
        let places = if tokens > FEW { tokens.next_multiple_of(TILE_TOKENS) } else { tokens };
        (self.blocks, self.places, self.block) = (blocks, places, block);
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
                let (first, scales) = (&mut codes_of_all[token * block..], &mut scales[token..]);
                (table.quantise)(&x[columns.clone()], codes, places, (first, scales, &mut offsets[token..]));
            }
        });
    }

    /// The tokens of the last call.
    pub fn tokens(&self) -> Quantised<'_> {
        let Self { codes, scales, offsets, blocks, places, block } = self;
        Quantised { codes: codes.values(), scales, offsets, blocks: *blocks, places: *places, block: *block }
    }
}

/// Added and taken away again it rounds a float below 2²² to a whole number, ties to even.
const ROUND: f32 = 12_582_912.0;

/// Where a token's codes, scales and offsets go, from its first block on.
pub(crate) type Places<'a> = (&'a mut [i8], &'a mut [f32], &'a mut [i32]);

/// One token: `codes = round(127 · x / max|x|)` for each block, `scale = max|x| / 127`; what is not finite
/// makes the scale so. Arguments: `x` `[in_features]`, the weights' codes, the tokens that stand between two
/// blocks, and where it all goes.
#[inline(always)]
pub(crate) fn quantise<const FMA: bool>(x: &[f32], codes: Codes, places: usize, out: Places<'_>) {
    match codes.block() {
        64 => blocks::<64>(x, codes.zero(), places, out),
        _ => blocks::<32>(x, codes.zero(), places, out),
    }
}

#[inline(always)]
fn blocks<const BLOCK: usize>(x: &[f32], zero: i32, places: usize, (codes, scales, offsets): Places<'_>) {
    let (whole, rest) = x.as_chunks::<BLOCK>();
    let mut padded = [0.0; BLOCK];
    padded[..rest.len()].copy_from_slice(rest);
    let last = (!rest.is_empty()).then_some(&padded);
    for (index, x) in whole.iter().chain(last).enumerate() {
        let place = index * places;
        let codes = codes[place * BLOCK..].first_chunk_mut().expect("a block");
        (scales[place], offsets[place]) = block::<BLOCK>(x, zero, codes);
    }
}

#[inline(always)]
fn block<const BLOCK: usize>(x: &[f32; BLOCK], zero: i32, row: &mut [i8; BLOCK]) -> (f32, i32) {
    let mut largest = [0f32; 16];
    let mut odd = [0f32; 16]; // stays 0, or becomes what no number is
    for x in x.as_chunks::<16>().0 {
        for i in 0..16 {
            largest[i] = if x[i].abs() > largest[i] { x[i].abs() } else { largest[i] };
            odd[i] += x[i] * 0.0;
        }
    }
    let largest = largest.iter().fold(0f32, |a, &b| if b > a { b } else { a });
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 127.0 / largest } else { 0.0 };
    // What is below 2⁻¹²¹ has no inverse: it counts as nothing.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    let mut sums = [0i32; 16];
    for (codes, x) in row.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks::<16>().0) {
        for i in 0..16 {
            // The sum's lowest bits are the whole number.
            let bits = (x[i] * inverse + ROUND).to_bits().wrapping_sub(ROUND.to_bits());
            codes[i] = bits as i8;
            sums[i] += i32::from(bits as i8);
        }
    }
    (scale + odd.iter().sum::<f32>(), -zero * sums.iter().sum::<i32>())
}
