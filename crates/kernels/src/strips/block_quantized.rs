//! Tokens in int8 with a scale for each block: how they lie, and how one token is quantized.

use super::layout::StripFormat;
use crate::rounding::nearest_i32;

/// Most tokens that are not padded to whole tiles: no table multiplies fewer of them in tiles.
pub(crate) const FEW: usize = 8;

/// Tokens in int8, block by block. What a product reads together lies together.
#[derive(Clone, Copy, Debug)]
pub struct BlockQuantized<'a> {
    pub(super) codes: &'a [i8],    // [blocks, places, block]
    pub(super) scales: &'a [f32],  // [blocks, places]
    pub(super) offsets: &'a [i32], // [blocks, places]: −zero · Σ codes, where a block's sum begins
    pub(crate) blocks: usize,
    /// Tokens that there is room for. More than [`FEW`] are padded to whole tiles.
    pub(crate) places: usize,
    pub(super) block: usize,
    pub(super) zero: i32,
}

impl<'a> BlockQuantized<'a> {
    /// # Panics
    /// If these are not so many tokens, quantized for `codes`.
    pub(crate) fn check(&self, format: StripFormat, tokens: usize) {
        let Self { blocks, places, block, zero, .. } = *self;
        assert!(
            tokens <= places && (block, zero) == (format.block(), format.zero()),
            "{tokens} tokens in blocks of {}",
            format.block()
        );
        assert_eq!(self.codes.len(), blocks * places * block, "codes of {places} tokens");
        assert!(self.scales.len() == blocks * places && self.offsets.len() == blocks * places, "scales");
    }

    /// The codes of a block, from a token on. Those of the next tokens follow.
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

/// Where one token's blocks go. From one block to the next are `places` blocks of codes, scales and offsets.
#[derive(Debug)]
pub(crate) struct TokenMut<'a> {
    pub(crate) codes: &'a mut [i8],
    pub(crate) scales: &'a mut [f32],
    pub(crate) offsets: &'a mut [i32],
    pub(crate) places: usize,
}

/// Quantizes one token `x` `[in_features]` as the other factor of weights in `codes`. For each block
/// `codes = round(127 · x / max|x|)` and `scale = max|x| / 127`. A value that is not finite makes the scale
/// of its block not finite.
#[inline(always)]
pub(crate) fn quantize_token<const FMA: bool>(x: &[f32], format: StripFormat, out: TokenMut<'_>) {
    match format.block() {
        64 => blocks::<64>(x, format.zero(), out),
        _ => blocks::<32>(x, format.zero(), out),
    }
}

#[inline(always)]
fn blocks<const BLOCK: usize>(x: &[f32], zero: i32, out: TokenMut<'_>) {
    let TokenMut { codes, scales, offsets, places } = out;
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
    let mut odd = [0f32; 16]; // stays 0, or becomes NaN where a value is not finite
    for x in x.as_chunks::<16>().0 {
        for i in 0..16 {
            largest[i] = if x[i].abs() > largest[i] { x[i].abs() } else { largest[i] };
            odd[i] += x[i] * 0.0;
        }
    }
    let largest = largest.iter().fold(0f32, |a, &b| if b > a { b } else { a });
    let scale = largest / 127.0;
    let inverse = if scale > 0.0 { 127.0 / largest } else { 0.0 };
    // A magnitude below 2⁻¹²¹ has no finite inverse: it counts as 0.
    let inverse = if inverse.is_finite() { inverse } else { 0.0 };
    let mut sums = [0i32; 16];
    for (codes, x) in row.as_chunks_mut::<16>().0.iter_mut().zip(x.as_chunks::<16>().0) {
        for i in 0..16 {
            codes[i] = nearest_i32(x[i] * inverse) as i8;
            sums[i] += i32::from(codes[i]);
        }
    }
    (scale + odd.iter().sum::<f32>(), -zero * sums.iter().sum::<i32>())
}
