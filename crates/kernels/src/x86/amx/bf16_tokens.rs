//! Tokens in `bf16`, in the order in which tiles read them.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::tile::SIDE;
use super::transpose::transpose;
use half::bf16;
use std::arch::x86_64::*;

/// k of a tile.
pub(super) const STEP: usize = 2 * SIDE;

/// Tokens of a group, which share a tile, and the number of groups. Fewer than 16 tokens make the tile
/// narrower.
pub(super) fn groups(tokens: usize) -> (usize, usize) {
    (tokens.min(SIDE), tokens.div_ceil(SIDE))
}

/// Values that [`operand`] writes.
pub(super) fn operand_len(tokens: usize, in_features: usize) -> usize {
    let (width, groups) = groups(tokens);
    groups * in_features.div_ceil(STEP) * STEP * width
}

/// Rounds `x` `[tokens, in_features]` to `bf16`, in the order in which tiles read it:
/// `[groups, steps, pairs of k, tokens of a group, 2]`, padded with zeros.
pub(super) fn operand(x: &[f32], in_features: usize, all: usize, out: &mut [bf16]) {
    let tokens = x.len() / in_features;
    let (width, _) = groups(all);
    let groups = tokens.div_ceil(width);
    let steps = in_features.div_ceil(STEP);
    assert_eq!(out.len(), groups * steps * STEP * width, "room for whole tiles");
    let group = steps * STEP * width;
    for (out, x) in out.chunks_exact_mut(group).zip(x.chunks(width * in_features)) {
        for (step, out) in out.chunks_exact_mut(STEP * width).enumerate() {
            let depth = STEP.min(in_features - step * STEP);
            let from = &x[step * STEP..];
            if width == SIDE && depth == STEP && x.len() == SIDE * in_features {
                // SAFETY: 16 tokens have 32 values from here on, and the step has as many.
                unsafe { transpose_step(from, in_features, out) };
            } else {
                transpose_some(from, in_features, Extent { tokens: width, depth }, out);
            }
        }
    }
}

/// # Safety
/// `x` must have 32 values in each of 16 rows, `stride` apart, and `out` as many in all.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn transpose_step(x: &[f32], stride: usize, out: &mut [bf16]) {
    let mut pairs = [_mm512_setzero_si512(); SIDE]; // of each token
    for (t, pairs) in pairs.iter_mut().enumerate() {
        let from = x.as_ptr().wrapping_add(t * stride);
        // SAFETY: the caller's promise; vectors of `bf16` are vectors of as many bits.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.wrapping_add(SIDE)));
            *pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        }
    }
    for (p, tokens) in transpose(pairs).into_iter().enumerate() {
        // SAFETY: `out` has room for 16 vectors.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(p * STEP).cast(), tokens) };
    }
}

/// How much of a tile there is.
struct Extent {
    tokens: usize,
    depth: usize, // k
}

/// As [`transpose_step`], for fewer tokens or fewer k.
fn transpose_some(x: &[f32], stride: usize, extent: Extent, out: &mut [bf16]) {
    let Extent { tokens: width, depth } = extent;
    out.fill(bf16::ZERO);
    for (t, x) in x.chunks(stride).take(width).enumerate() {
        for (k, &x) in x[..depth].iter().enumerate() {
            out[k / 2 * 2 * width + 2 * t + k % 2] = bf16::from_f32(x);
        }
    }
}
