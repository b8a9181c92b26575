//! Packing of training's products for tiles.
//!
//! A block is 16 rows or columns by 16 words of k. A tile of the left operand has rows in its lines, one of
//! the right operand has words: what does not lie like that is transposed.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::tile::{PAIR, SIDE};
use super::transpose::transpose;
use crate::gemm::matrix::{PackSource, Values};
use std::arch::x86_64::*;

/// Writes panels of 32 rows, `[panels, 2, steps, 16 rows, 16 words]`, or of 32 columns,
/// `[panels, steps, 16 words, 32 columns]`.
///
/// # Panics
/// If the source or the panels are not what they say.
pub(super) fn pack<const LEFT: bool>(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    let words = source.depth.div_ceil(2).next_multiple_of(SIDE);
    assert!(source.stride == 1 || source.k_stride == 1, "values side by side");
    assert!(source.count > 0 && source.depth > 0 && width == PAIR, "something to pack");
    assert_eq!(panels.len(), source.count.next_multiple_of(PAIR) * words, "panels of the source's shape");
    let last = (source.count - 1) * source.stride + (source.depth - 1) * source.k_stride;
    let len = match source.values {
        Values::F32(values) => values.len(),
        Values::Bf16(values) => values.len(),
    };
    assert!(last < len, "its values");
    // SAFETY: the source lies within its values, and the panels have `words` words for each of its rows; this
    // table has the instructions.
    unsafe { blocks::<LEFT>(source, words, panels.as_mut_ptr()) }
}

/// # Safety
/// The source must lie within its values, and the panels be its own.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn blocks<const LEFT: bool>(source: PackSource<'_>, words: usize, panels: *mut u32) {
    let (groups, steps) = (source.count.div_ceil(SIDE), words / SIDE);
    // In the order in which the values lie in memory.
    let along = source.k_stride == 1;
    let [outer, inner] = if along { [groups, steps] } else { [steps, groups] };
    for first in 0..outer {
        for second in 0..inner {
            let [group, step] = if along { [first, second] } else { [second, first] };
            let (at, line) = match LEFT {
                true => ((group * steps + step) * SIDE * SIDE, SIDE),
                false => ((group / 2 * steps + step) * SIDE * PAIR + group % 2 * SIDE, PAIR),
            };
            // SAFETY: the caller's promise: the block reads what exists of the source.
            let vectors = unsafe {
                let [row, k] = [group * SIDE, step * PAIR];
                if along { rows(source, row, k) } else { pairs(source, row, k) }
            };
            let vectors = if along == LEFT { vectors } else { transpose(vectors) };
            for (i, vector) in vectors.into_iter().enumerate() {
                // SAFETY: the caller's promise: the block has 16 lines here.
                unsafe { _mm512_storeu_si512(panels.add(at + i * line).cast(), vector) };
            }
        }
    }
}

/// The first `count` lanes, at most all.
#[inline]
fn mask(count: usize) -> u16 {
    ((1u32 << count.min(SIDE)) - 1) as u16
}

/// 16 words of each of 16 rows from `row` and `k` on, zero beyond the source.
///
/// # Safety
/// The source must lie within its values, side by side along k.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn rows(source: PackSource<'_>, row: usize, k: usize) -> [__m512i; SIDE] {
    let mut rows = [_mm512_setzero_si512(); SIDE];
    let (left, start) = (source.depth.saturating_sub(k), row * source.stride + k);
    let [low, high] = [mask(left), mask(left.saturating_sub(SIDE))];
    let count = SIDE.min(source.count - row);
    match source.values {
        Values::F32(values) => {
            for (i, row) in rows.iter_mut().enumerate().take(count) {
                let at = values.as_ptr().wrapping_add(start + i * source.stride);
                // SAFETY: masked lanes are not read.
                unsafe {
                    let even = _mm512_maskz_loadu_ps(low, at);
                    *row = round(even, _mm512_maskz_loadu_ps(high, at.wrapping_add(SIDE)));
                }
            }
        }
        Values::Bf16(values) => {
            let inside = u32::from(low) | u32::from(high) << SIDE;
            for (i, row) in rows.iter_mut().enumerate().take(count) {
                let at = values.as_ptr().wrapping_add(start + i * source.stride);
                // SAFETY: as above.
                *row = unsafe { _mm512_maskz_loadu_epi16(inside, at.cast()) };
            }
        }
    }
    rows
}

/// 16 pairs of k from `k` on, each of 16 rows from `row` on, zero beyond the source.
///
/// # Safety
/// The source must lie within its values, its rows side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pairs(source: PackSource<'_>, row: usize, k: usize) -> [__m512i; SIDE] {
    let mut pairs = [_mm512_setzero_si512(); SIDE];
    let (inside, start) = (mask(source.count - row), k * source.k_stride + row);
    let left = source.depth.saturating_sub(k);
    // SAFETY: 32 places.
    let places = unsafe { _mm512_loadu_si512(INTERLEAVED.as_ptr().cast()) };
    for (i, pair) in pairs.iter_mut().enumerate().take(left.div_ceil(2)) {
        let index = start + 2 * i * source.k_stride;
        let odd = if 2 * i + 1 < left { inside } else { 0 };
        // SAFETY: masked lanes are not read.
        let halves = unsafe {
            match source.values {
                Values::F32(values) => {
                    let at = values.as_ptr().wrapping_add(index);
                    let even = _mm512_maskz_loadu_ps(inside, at);
                    round(even, _mm512_maskz_loadu_ps(odd, at.wrapping_add(source.k_stride)))
                }
                Values::Bf16(values) => {
                    let at = values.as_ptr().wrapping_add(index);
                    let even = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(inside, at.cast()));
                    let odd = _mm256_maskz_loadu_epi16(odd, at.wrapping_add(source.k_stride).cast());
                    _mm512_inserti64x4::<1>(even, odd)
                }
            }
        };
        *pair = _mm512_permutexvar_epi16(places, halves);
    }
    pairs
}

/// The places of 16 low values and 16 high ones, in turn.
static INTERLEAVED: [i16; PAIR] = {
    let mut places = [0; PAIR];
    let mut i = 0;
    while i < PAIR {
        places[i] = (i / 2 + i % 2 * SIDE) as i16;
        i += 1;
    }
    places
};

/// 32 values, rounded to nearest, ties to even.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: vectors of `bf16` are vectors of as many bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}
