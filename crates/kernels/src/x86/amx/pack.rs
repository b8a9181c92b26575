//! Packing of training's products for tiles.
//!
//! A block is 16 rows or columns by 16 words of k. A tile of the left operand has rows in its lines, one of the
//! right operand has words: whatever does not lie so is turned over on the way.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::SIDE;
use super::gemm::PAIR;
use super::transpose::transpose;
use crate::gemm::{Strip, Values};
use std::arch::x86_64::*;

/// Writes panels of 32 rows, `[panels, 2, steps, 16 rows, 16 words]`, or of 32 columns,
/// `[panels, steps, 16 words, 32 columns]`.
///
/// # Panics
/// If the strip or the panels are not what they say.
pub(super) fn pack<const LEFT: bool>(strip: Strip<'_>, width: usize, panels: &mut [u32]) {
    let words = strip.depth.div_ceil(2).next_multiple_of(SIDE);
    assert!(strip.stride == 1 || strip.k_stride == 1, "values side by side");
    assert!(strip.count > 0 && strip.depth > 0 && width == PAIR, "something to pack");
    assert_eq!(panels.len(), strip.count.next_multiple_of(PAIR) * words, "panels of the strip's shape");
    let last = (strip.count - 1) * strip.stride + (strip.depth - 1) * strip.k_stride;
    let len = match strip.values {
        Values::F32(values) => values.len(),
        Values::Bf16(values) => values.len(),
    };
    assert!(last < len, "its values");
    // SAFETY: the strip lies within its values, and the panels have `words` words for each of its rows; this
    // table has the instructions.
    unsafe { blocks::<LEFT>(strip, words, panels.as_mut_ptr()) }
}

/// # Safety
/// The strip must lie within its values, and the panels be its own.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn blocks<const LEFT: bool>(strip: Strip<'_>, words: usize, panels: *mut u32) {
    let (groups, steps) = (strip.count.div_ceil(SIDE), words / SIDE);
    let block = |group: usize, step: usize| {
        let (at, line) = match LEFT {
            true => ((group * steps + step) * SIDE * SIDE, SIDE),
            false => ((group / 2 * steps + step) * SIDE * PAIR + group % 2 * SIDE, PAIR),
        };
        let along = strip.k_stride == 1;
        let vectors: [__m512i; SIDE] = std::array::from_fn(|i| {
            // SAFETY: the caller's promise: the vector reads what exists of the strip.
            unsafe {
                match along {
                    true => row(strip, group * SIDE + i, step * PAIR),
                    false => word(strip, group * SIDE, step * PAIR + 2 * i),
                }
            }
        });
        let vectors = if along == LEFT { vectors } else { transpose(vectors) };
        for (i, vector) in vectors.into_iter().enumerate() {
            // SAFETY: the caller's promise: the block has 16 lines here.
            unsafe { _mm512_storeu_si512(panels.add(at + i * line).cast(), vector) };
        }
    };
    // As the values lie in memory.
    if strip.k_stride == 1 {
        (0..groups).for_each(|group| (0..steps).for_each(|step| block(group, step)));
    } else {
        (0..steps).for_each(|step| (0..groups).for_each(|group| block(group, step)));
    }
}

/// The first `count` lanes, at most all.
#[inline]
fn mask(count: usize) -> u16 {
    ((1u32 << count.min(SIDE)) - 1) as u16
}

/// 16 words of one row from `k` on, zero beyond the strip.
///
/// # Safety
/// The strip must lie within its values, side by side along k.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn row(strip: Strip<'_>, row: usize, k: usize) -> __m512i {
    let left = if row < strip.count { strip.depth.saturating_sub(k) } else { 0 };
    let index = row * strip.stride + k;
    // SAFETY: masked lanes are not read.
    unsafe {
        match strip.values {
            Values::F32(values) => {
                let at = values.as_ptr().wrapping_add(index);
                let low = _mm512_maskz_loadu_ps(mask(left), at);
                let high = _mm512_maskz_loadu_ps(mask(left.saturating_sub(SIDE)), at.wrapping_add(SIDE));
                round(low, high)
            }
            Values::Bf16(values) => {
                let inside = ((1u64 << left.min(PAIR)) - 1) as u32;
                _mm512_maskz_loadu_epi16(inside, values.as_ptr().wrapping_add(index).cast())
            }
        }
    }
}

/// One word, `k` and the next, of 16 rows from `first` on, zero beyond the strip.
///
/// # Safety
/// The strip must lie within its values, its rows side by side.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn word(strip: Strip<'_>, first: usize, k: usize) -> __m512i {
    let inside = mask(strip.count.saturating_sub(first));
    let [even, odd] = [k, k + 1].map(|k| if k < strip.depth { inside } else { 0 });
    let index = k * strip.k_stride + first;
    // SAFETY: masked lanes are not read.
    let halves = unsafe {
        match strip.values {
            Values::F32(values) => {
                let at = values.as_ptr().wrapping_add(index);
                let low = _mm512_maskz_loadu_ps(even, at);
                round(low, _mm512_maskz_loadu_ps(odd, at.wrapping_add(strip.k_stride)))
            }
            Values::Bf16(values) => {
                let at = values.as_ptr().wrapping_add(index);
                let low = _mm512_castsi256_si512(_mm256_maskz_loadu_epi16(even, at.cast()));
                let high = _mm256_maskz_loadu_epi16(odd, at.wrapping_add(strip.k_stride).cast());
                _mm512_inserti64x4::<1>(low, high)
            }
        }
    };
    // SAFETY: 32 places.
    let places = unsafe { _mm512_loadu_si512(INTERLEAVED.as_ptr().cast()) };
    _mm512_permutexvar_epi16(places, halves)
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
