//! The other factor: a few tokens, quantised to int8 block by block.

use super::Codes;
use crate::table::Table;

/// Room is made for whole groups of so many tokens, which some tables read.
const TILE: usize = 16;

/// Tokens in int8.
#[derive(Clone, Copy, Debug)]
pub struct Quantised<'a> {
    pub(crate) codes: &'a [i8],    // [tokens and perhaps more, blocks · block]
    pub(crate) scales: &'a [f32],  // [tokens, blocks]
    pub(crate) offsets: &'a [i32], // [tokens, blocks]: −zero · Σ codes, where a block's sum begins
    pub(crate) blocks: usize,
    block: usize,
}

impl Quantised<'_> {
    pub(super) fn check(&self, codes: Codes, tokens: usize) {
        assert_eq!(self.block, codes.block(), "tokens quantised for {codes:?}");
        let blocks = tokens * self.blocks;
        assert!(self.codes.len() >= blocks * codes.block(), "codes of {tokens} tokens");
        assert!(self.scales.len() == blocks && self.offsets.len() == blocks, "scales of {tokens} tokens");
    }
}

/// Makes [`Quantised`] tokens, in buffers kept from call to call.
#[derive(Clone, Debug, Default)]
pub struct Quantiser {
    codes: Vec<i8>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
    blocks: usize,
    block: usize,
}

impl Quantiser {
    /// Quantises `x` `[tokens, in_features]` as the other factor of `codes`.
    ///
    /// # Panics
    /// If `x` has not this shape.
    pub fn quantise(&mut self, table: &Table, codes: Codes, x: &[f32], in_features: usize) {
        assert!(in_features > 0 && x.len().is_multiple_of(in_features), "x is [tokens, {in_features}]");
        let (tokens, blocks) = (x.len() / in_features, codes.blocks(in_features));
        let padded = blocks * codes.block();
        (self.blocks, self.block) = (blocks, codes.block());
        self.codes.resize(tokens.next_multiple_of(TILE) * padded, 0);
        self.scales.resize(tokens * blocks, 0.0);
        self.offsets.resize(tokens * blocks, 0);
        let scales = self.scales.chunks_exact_mut(blocks).zip(self.offsets.chunks_exact_mut(blocks));
        let rows = x.chunks_exact(in_features).zip(self.codes.chunks_exact_mut(padded));
        for ((x, row), (scales, offsets)) in rows.zip(scales) {
            (table.quantise)(x, codes, row, scales, offsets);
        }
    }

    /// The tokens of the last call.
    pub fn tokens(&self) -> Quantised<'_> {
        let Self { codes, scales, offsets, blocks, block } = self;
        Quantised { codes, scales, offsets, blocks: *blocks, block: *block }
    }
}

/// Added and taken away again it rounds a float below 2²² to a whole number, ties to even.
const ROUND: f32 = 12_582_912.0;

/// One token: `codes = round(127 · x / max|x|)` for each block, `scale = max|x| / 127`; what is not finite
/// makes the scale so. Arguments: `x` `[in_features]`, the weights' codes, `row` `[blocks · block]`, `scales`
/// and `offsets` `[blocks]`.
#[inline(always)]
pub(crate) fn quantise<const FMA: bool>(
    x: &[f32],
    codes: Codes,
    row: &mut [i8],
    scales: &mut [f32],
    offsets: &mut [i32],
) {
    match codes.block() {
        64 => blocks::<64>(x, codes.zero(), row, scales, offsets),
        _ => blocks::<32>(x, codes.zero(), row, scales, offsets),
    }
}

#[inline(always)]
fn blocks<const BLOCK: usize>(x: &[f32], zero: i32, row: &mut [i8], scales: &mut [f32], offsets: &mut [i32]) {
    let (whole, rest) = x.as_chunks::<BLOCK>();
    let (rows, torn) = row.as_chunks_mut::<BLOCK>();
    assert!(rows.len() == x.len().div_ceil(BLOCK) && torn.is_empty(), "a block for every {BLOCK}");
    assert!(scales.len() == rows.len() && offsets.len() == rows.len(), "a scale for every block");
    for ((row, x), (scale, offset)) in rows.iter_mut().zip(whole).zip(scales.iter_mut().zip(&mut *offsets)) {
        (*scale, *offset) = block(x, zero, row);
    }
    if !rest.is_empty() {
        let mut padded = [0.0; BLOCK];
        padded[..rest.len()].copy_from_slice(rest);
        let last = rows.len() - 1;
        (scales[last], offsets[last]) = block(&padded, zero, &mut rows[last]);
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
    let mut sum = 0;
    for (code, &x) in row.iter_mut().zip(x) {
        let whole = (x * inverse + ROUND) - ROUND;
        let whole = whole.clamp(-127.0, 127.0) as i32;
        *code = whole as i8;
        sum += whole;
    }
    (scale + odd.iter().sum::<f32>(), -zero * sum)
}
