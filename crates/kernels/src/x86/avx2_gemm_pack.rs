//! Packing of training's products for AVX2.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::avx2_gemm::first_lanes;
use crate::gemm::matrix::{PackSource, Values};
use std::arch::x86_64::*;

const LANES: usize = 8;

/// Values are `f32`.
pub(super) const F32_VALUES: u8 = 0;
/// Values are `f32`, and rounded to `bf16`.
pub(super) const ROUNDED: u8 = 1;
/// Values are `bf16`.
pub(super) const WIDENED: u8 = 2;

/// Rows that are copied together: six cache lines of `f32`, and a multiple of both panels' widths.
const ABREAST: usize = 96;

/// Writes rows or columns as panels of `[words of k, WIDTH]`, each word an `f32`; `KIND` must fit the values.
///
/// # Panics
/// If the source or the panels are not what they say.
pub(super) fn pack<const KIND: u8, const WIDTH: usize>(source: PackSource<'_>, panels: &mut [u32]) {
    const { assert!(WIDTH < LANES || WIDTH.is_multiple_of(LANES), "a store stays behind those to come") };
    let PackSource { values, count, depth, stride, k_stride } = source;
    assert!(stride == 1 || k_stride == 1, "values side by side");
    assert!(count > 0 && depth > 0, "something to pack");
    assert_eq!(panels.len(), count.div_ceil(WIDTH) * WIDTH * depth, "panels of the source's shape");
    let (values, len) = match values {
        Values::F32(values) => (values.as_ptr().cast::<u8>(), values.len()),
        Values::Bf16(values) => (values.as_ptr().cast(), values.len()),
    };
    assert!(matches!(source.values, Values::Bf16(_)) == (KIND == WIDENED), "values of that kind");
    assert!((count - 1) * stride + (depth - 1) * k_stride < len, "values of the source's shape");
    // SAFETY: the source lies within its values, and the panels have `depth` words for each of its rows;
    // packing is handed out with the tiles, where the processor has the instructions.
    unsafe {
        match k_stride {
            1 => transpose::<KIND, WIDTH>(values, source, panels.as_mut_ptr()),
            _ => copy::<KIND, WIDTH>(values, source, panels.as_mut_ptr()),
        }
    }
}

/// Values of k lie side by side: 8 × 8 are transposed in registers.
///
/// # Safety
/// The source must lie within `values`, and fit the panels.
#[target_feature(enable = "avx2")]
unsafe fn transpose<const KIND: u8, const WIDTH: usize>(
    values: *const u8,
    source: PackSource<'_>,
    panels: *mut u32,
) {
    let PackSource { count, depth, stride, .. } = source;
    for first in (0..count).step_by(LANES.min(WIDTH)) {
        let panel = panels.wrapping_add(first / WIDTH * WIDTH * depth + first % WIDTH);
        let rows = LANES.min(WIDTH).min(count - first);
        for k in (0..depth).step_by(LANES) {
            let here = LANES.min(depth - k);
            let rows: [__m256; LANES] = std::array::from_fn(|i| match i < rows {
                // SAFETY: the row has these values.
                true => unsafe { load::<KIND>(values, (first + i) * stride + k, here) },
                false => _mm256_setzero_ps(),
            });
            for (i, word) in transposed(rows).into_iter().take(here).enumerate() {
                // SAFETY: the panel has this word.
                unsafe { put::<WIDTH>(panel.add((k + i) * WIDTH), word, k + i + 1 == depth) };
            }
        }
    }
}

/// Rows lie side by side: every k is copied, `ABREAST` rows at a time so that cache lines are read whole.
///
/// # Safety
/// As [`transpose`]; the source's rows must be one value apart, or it must have one.
#[target_feature(enable = "avx2")]
unsafe fn copy<const KIND: u8, const WIDTH: usize>(
    values: *const u8,
    source: PackSource<'_>,
    panels: *mut u32,
) {
    let PackSource { count, depth, k_stride, .. } = source;
    let step = LANES.min(WIDTH);
    for block in (0..count).step_by(ABREAST) {
        for k in 0..depth {
            for first in (block..count.min(block + ABREAST)).step_by(step) {
                let at = first / WIDTH * WIDTH * depth + first % WIDTH + k * WIDTH;
                // SAFETY: the rows have this k, and their panel this word.
                unsafe {
                    let word = load::<KIND>(values, k * k_stride + first, step.min(count - first));
                    put::<WIDTH>(panels.add(at), word, k + 1 == depth);
                }
            }
        }
    }
}

/// Writes a word's next 8 lanes. Where a word has fewer, those that follow belong to the panel's next word,
/// which is written later; behind its last word they are left alone.
///
/// # Safety
/// The panel must hold the word, and the next one if this is not the last.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn put<const WIDTH: usize>(at: *mut u32, word: __m256, is_last: bool) {
    // SAFETY: the caller's promise; masked lanes are not written.
    unsafe {
        if is_last && WIDTH < LANES {
            _mm256_maskstore_ps(at.cast(), first_lanes(WIDTH), word);
        } else {
            _mm256_storeu_ps(at.cast(), word);
        }
    }
}

/// `count` values from an index on, at most 8, and zeros.
///
/// # Safety
/// They must exist.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load<const KIND: u8>(values: *const u8, index: usize, count: usize) -> __m256 {
    // SAFETY: masked lanes are not read; of `bf16` so many are copied as exist.
    unsafe {
        if KIND == WIDENED {
            let mut halves = [0u16; LANES];
            let at = values.cast::<u16>().add(index);
            std::ptr::copy_nonoverlapping(at, halves.as_mut_ptr(), count.min(LANES));
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(halves.as_ptr().cast()));
            return _mm256_castsi256_ps(_mm256_slli_epi32::<16>(words));
        }
        let at = values.cast::<f32>().add(index);
        let x = if count >= LANES { _mm256_loadu_ps(at) } else { _mm256_maskload_ps(at, first_lanes(count)) };
        if KIND == ROUNDED { round(x) } else { x }
    }
}

/// The nearest `bf16`, ties to even; NaN stays NaN.
#[inline]
#[target_feature(enable = "avx2")]
fn round(x: __m256) -> __m256 {
    let bits = _mm256_castps_si256(x);
    let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(x, x));
    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    _mm256_castsi256_ps(_mm256_and_si256(_mm256_blendv_epi8(rounded, quiet, nan), upper))
}

/// The columns of 8 rows.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256; LANES]) -> [__m256; LANES] {
    let pairs = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let fours = |[a, b, c, d]: [__m256; 4]| {
        let ((ab, ab_high), (cd, cd_high)) = (pairs(a, b), pairs(c, d));
        [
            _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
            _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
            _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
        ]
    };
    let [a, b, c, d, e, f, g, h] = rows;
    // Column i of the first four rows, and column i + 4.
    let (upper, lower) = (fours([a, b, c, d]), fours([e, f, g, h]));
    std::array::from_fn(|i| match i < 4 {
        true => _mm256_permute2f128_ps::<0x20>(upper[i], lower[i]),
        false => _mm256_permute2f128_ps::<0x31>(upper[i - 4], lower[i - 4]),
    })
}
