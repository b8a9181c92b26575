//! Products of ternary strips for AVX2: unsigned codes by signed inputs, added in pairs of 16 bits.
//!
//! A pair is at most 2 · 3 · 128 = 768, so that the 16 of a block are added in 16 bits.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(clippy::needless_range_loop, reason = "counts of registers, fixed for the compiler")]

use crate::columns::ColumnsMut;
use crate::strips::STRIP;
use crate::ternary::{BLOCK, BLOCK_BYTES, LINE, QUAD, QUADS, Quantised, STEP, Ternary};
use std::arch::x86_64::*;

/// Tokens of a tile.
const TOKENS: usize = 4;
/// Vectors of a line, their bytes and rows.
const VECTORS: usize = 4;
const BYTES: usize = LINE / VECTORS;
const ROWS: usize = STRIP / VECTORS;
/// Bytes asked for ahead of those multiplied.
const AHEAD: usize = 2 << 10;
// Whatever the two bits are: a file's are checked, but not here.
const _: () = assert!(BLOCK / QUAD * 2 * 3 * 128 < 1 << 15);

/// Some tokens of a product, and where their sums with one strip go.
#[derive(Clone, Copy)]
struct Tile<'a> {
    x: Quantised<'a>,
    token: usize,
    step: f32,
    out: *mut f32, // of the first token and row
    stride: usize,
    rows: usize,
}

/// See [`Table::product_ternary`](crate::Table::product_ternary).
#[target_feature(enable = "avx2,fma")]
pub(super) fn product(factors: Ternary<'_>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    let bytes = factors.check(tokens, rows);
    let Ternary { x, weight, step } = factors;
    let (start, stride) = (out.as_mut_ptr(), out.stride());
    for (first, strip) in (0..rows).step_by(STRIP).zip(weight.chunks_exact(bytes)) {
        for token in (0..tokens).step_by(TOKENS) {
            let out = start.wrapping_add(token * stride + first);
            let tile = Tile { x, token, step, out, stride, rows: STRIP.min(rows - first) };
            // SAFETY: `check` says that tokens and strip have their blocks; the output has these elements. Groups
            // of more than 8 tokens are whole multiples of `TOKENS`, and smaller ones begin at 0 and end where the
            // tokens do, so that a tile lies within one.
            unsafe {
                match tokens - token {
                    1 => multiply::<1, 4>(tile, strip),
                    2 => multiply::<2, 4>(tile, strip),
                    3 => multiply::<3, 2>(tile, strip),
                    _ => multiply::<TOKENS, 2>(tile, strip),
                }
            }
        }
    }
}

/// The products of `T` tokens, `V` vectors at a time: their sums fill half of the 16 registers.
///
/// # Safety
/// The strip must have the tokens' blocks, the tokens stand in one group, the output have its elements.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<const T: usize, const V: usize>(tile: Tile<'_>, strip: &[u8]) {
    let Tile { x, token, .. } = tile;
    let (low, ones) = (_mm256_set1_epi8(3), _mm256_set1_epi16(1));
    let mut sums = [[_mm256_setzero_si256(); VECTORS]; T];
    for block in 0..x.blocks {
        let (inputs, lines) = (x.codes(block, token).as_ptr(), strip[block * BLOCK_BYTES..].as_ptr());
        for first in (0..VECTORS).step_by(V) {
            let mut pairs = [[_mm256_setzero_si256(); V]; T];
            for step in 0..BLOCK / STEP {
                let here = lines.wrapping_add(step * LINE);
                for line in (0..LINE).step_by(64).filter(|_| first == 0) {
                    _mm_prefetch::<_MM_HINT_T0>(here.wrapping_add(AHEAD + line).cast());
                }
                for quad in 0..QUADS {
                    // SAFETY: the strip has this block, and each token `BLOCK` codes of it.
                    unsafe {
                        let fours: [_; T] = std::array::from_fn(|t| {
                            let at = t * BLOCK + step * STEP + quad * QUAD;
                            _mm256_set1_epi32(inputs.add(at).cast::<i32>().read_unaligned())
                        });
                        for v in 0..V {
                            let line = _mm256_loadu_si256(here.add((first + v) * BYTES).cast());
                            let line = _mm256_srl_epi16(line, _mm_cvtsi32_si128(2 * quad as i32));
                            let codes = _mm256_and_si256(line, low);
                            for t in 0..T {
                                let products = _mm256_maddubs_epi16(codes, fours[t]);
                                pairs[t][v] = _mm256_add_epi16(pairs[t][v], products);
                            }
                        }
                    }
                }
            }
            for (t, pairs) in pairs.iter().enumerate() {
                for (v, &pairs) in pairs.iter().enumerate() {
                    let sum = &mut sums[t][first + v];
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
    }
    for (t, sums) in sums.iter().enumerate() {
        let (offset, scale) = (_mm256_set1_epi32(x.offsets(token)[t]), x.steps(token)[t] * tile.step);
        let mut of_token = [0f32; STRIP];
        for (v, &sum) in sums.iter().enumerate() {
            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, offset));
            let at = of_token[v * ROWS..][..ROWS].as_mut_ptr();
            // SAFETY: 8 floats.
            unsafe { _mm256_storeu_ps(at, _mm256_mul_ps(sum, _mm256_set1_ps(scale))) };
        }
        let to = tile.out.wrapping_add(t * tile.stride);
        // SAFETY: the output has so many rows of this strip.
        unsafe { to.copy_from_nonoverlapping(of_token.as_ptr(), tile.rows) };
    }
}
