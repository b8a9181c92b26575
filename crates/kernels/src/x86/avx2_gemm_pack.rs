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

/// Writes rows or columns as panels of `[words of k, width]`, each word an `f32`; `KIND` must fit the values.
///
/// # Panics
/// If the source or the panels are not what they say.
pub(super) fn pack<const KIND: u8>(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    let PackSource { values, count, depth, stride, k_stride } = source;
    assert!(stride == 1 || k_stride == 1, "values side by side");
    assert!(count > 0 && depth > 0, "something to pack");
    assert!(width < LANES || width.is_multiple_of(LANES), "no group writes over one that is done");
    assert_eq!(panels.len(), count.div_ceil(width) * width * depth, "panels of the source's shape");
    let (values, len) = match values {
        Values::F32(values) => (values.as_ptr().cast::<u8>(), values.len()),
        Values::Bf16(values) => (values.as_ptr().cast(), values.len()),
    };
    assert!(matches!(source.values, Values::Bf16(_)) == (KIND == WIDENED), "values of that kind");
    assert!((count - 1) * stride + (depth - 1) * k_stride < len, "values of the source's shape");
    for (panel, first) in (0..count).step_by(width).enumerate() {
        let panels = &mut panels[panel * width * depth..];
        for group in (0..width).step_by(LANES) {
            let lanes = LANES.min(width - group);
            let rows = lanes.min(count.saturating_sub(first + group));
            let offset = group;
            let group = Group { values, source, first: first + group, rows, lanes, width };
            // SAFETY: the group's rows lie within the values; packing is handed out with the tiles, where
            // the processor has the instructions.
            unsafe {
                match k_stride {
                    1 => group.transpose::<KIND>(&mut panels[offset..]),
                    _ => group.copy::<KIND>(&mut panels[offset..]),
                }
            }
        }
    }
}

/// Up to 8 rows that go to neighbouring lanes of one panel.
struct Group<'a> {
    values: *const u8,
    source: PackSource<'a>,
    first: usize, // row
    rows: usize,  // that exist
    lanes: usize, // of the panel
    width: usize, // of the panel
}

impl Group<'_> {
    /// Values of k lie side by side: 8 × 8 are transposed in registers.
    ///
    /// # Safety
    /// The rows must exist in the source, and the source in `values`.
    #[target_feature(enable = "avx2")]
    unsafe fn transpose<const KIND: u8>(&self, panel: &mut [u32]) {
        let depth = self.source.depth;
        for k in (0..depth).step_by(LANES) {
            let here = LANES.min(depth - k);
            let rows: [__m256; LANES] = std::array::from_fn(|i| match i < self.rows {
                // SAFETY: the row has these values.
                true => unsafe { load::<KIND>(self.values, (self.first + i) * self.source.stride + k, here) },
                false => _mm256_setzero_ps(),
            });
            for (i, word) in transposed(rows).into_iter().take(here).enumerate() {
                self.put(word, &mut panel[(k + i) * self.width..]);
            }
        }
    }

    /// Rows lie side by side.
    ///
    /// # Safety
    /// As [`Self::transpose`].
    #[target_feature(enable = "avx2")]
    unsafe fn copy<const KIND: u8>(&self, panel: &mut [u32]) {
        for k in 0..self.source.depth {
            // SAFETY: the rows have this k.
            let word = unsafe { load::<KIND>(self.values, k * self.source.k_stride + self.first, self.rows) };
            self.put(word, &mut panel[k * self.width..]);
        }
    }

    /// Writes a word of k. What it writes too much, the next words and panels overwrite.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn put(&self, word: __m256, out: &mut [u32]) {
        if out.len() >= LANES {
            // SAFETY: there is room for a vector.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr().cast(), word) }
        } else {
            let lanes = self.lanes.min(out.len());
            // SAFETY: masked lanes are not written.
            unsafe { _mm256_maskstore_ps(out.as_mut_ptr().cast(), first_lanes(lanes), word) }
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
