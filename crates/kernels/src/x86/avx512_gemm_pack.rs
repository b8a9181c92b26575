//! Packing of training's products for AVX-512.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use crate::gemm::matrix::{PackSource, Values};
use std::arch::x86_64::*;

const LANES: usize = 16;
/// Rows that are transposed together.
const TRANSPOSED: usize = 4;

/// Rows that are copied together: six cache lines of `f32`, and a multiple of both panels' widths.
const ABREAST: usize = 96;

/// Values of k by which a row is prefetched ahead: the next stretch.
const AHEAD: usize = 256;

/// A word is an `f32`.
pub(super) const F32_VALUES: u8 = 0;
/// A word is two `f32`, rounded.
pub(super) const ROUNDED: u8 = 1;
/// A word is two `bf16`.
pub(super) const BF16_VALUES: u8 = 2;

/// Writes rows or columns as panels of `[words of k, width]`; `KIND` must fit the values.
///
/// # Panics
/// If the source or the panels are not what they say.
pub(super) fn pack<const KIND: u8>(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    let words = source.depth.div_ceil(per_word(KIND));
    assert!(source.stride == 1 || source.k_stride == 1, "values side by side");
    assert!(source.count > 0 && source.depth > 0 && width.is_multiple_of(TRANSPOSED), "something to pack");
    assert_eq!(panels.len(), source.count.div_ceil(width) * width * words, "panels of the source's shape");
    let last = (source.count - 1) * source.stride + (source.depth - 1) * source.k_stride;
    let (values, len) = match source.values {
        Values::F32(values) => (values.as_ptr().cast::<u8>(), values.len()),
        Values::Bf16(values) => (values.as_ptr().cast(), values.len()),
    };
    assert!(last < len && matches!(source.values, Values::Bf16(_)) == (KIND == BF16_VALUES), "its values");
    let panels = PanelsMut { at: panels.as_mut_ptr(), width, words };
    // SAFETY: the source lies within its values, and the panels have `words` words for each of its rows; the
    // packing is handed out with the tiles, where the processor has the instructions.
    unsafe {
        if source.k_stride == 1 {
            transpose::<KIND>(values, source, panels);
        } else {
            copy::<KIND>(values, source, panels);
        }
    }
}

/// Where words go.
#[derive(Clone, Copy)]
struct PanelsMut {
    at: *mut u32, // [panels, words, width]
    width: usize,
    words: usize,
}

const fn per_word(kind: u8) -> usize {
    if kind == F32_VALUES { 1 } else { 2 }
}

/// The first `count` lanes, at most all.
#[inline]
fn mask(count: usize) -> u16 {
    ((1u32 << count.min(LANES)) - 1) as u16
}

/// Values of k lie side by side: four rows at a time are transposed in registers.
///
/// # Safety
/// The source must lie within `values`, and fit the panels.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn transpose<const KIND: u8>(values: *const u8, source: PackSource<'_>, panels: PanelsMut) {
    let PanelsMut { width, words, .. } = panels;
    for first in (0..source.count.next_multiple_of(width)).step_by(TRANSPOSED) {
        let panel = panels.at.wrapping_add(first / width * width * words + first % width);
        for word in (0..words).step_by(LANES) {
            let k = word * per_word(KIND);
            if first + 3 < source.count {
                // The next stretch of these rows: 1 KiB or more from here is another page's start.
                (0..TRANSPOSED).for_each(|i| ahead::<KIND>(values, (first + i) * source.stride + k + AHEAD));
            }
            let rows: [__m512i; TRANSPOSED] = std::array::from_fn(|i| match first + i < source.count {
                // SAFETY: the row exists, and is read up to its depth.
                true => unsafe { along::<KIND>(values, (first + i) * source.stride + k, source.depth - k) },
                false => _mm512_setzero_si512(),
            });
            let low = _mm512_unpacklo_epi32(rows[0], rows[1]);
            let high = _mm512_unpackhi_epi32(rows[0], rows[1]);
            let low2 = _mm512_unpacklo_epi32(rows[2], rows[3]);
            let high2 = _mm512_unpackhi_epi32(rows[2], rows[3]);
            // Lane L of quarter j has the four rows at word 4·L + j.
            let quarters = [
                _mm512_unpacklo_epi64(low, low2),
                _mm512_unpackhi_epi64(low, low2),
                _mm512_unpacklo_epi64(high, high2),
                _mm512_unpackhi_epi64(high, high2),
            ];
            let here = LANES.min(words - word);
            for (j, quarter) in quarters.into_iter().enumerate() {
                let lanes = [
                    _mm512_castsi512_si128(quarter),
                    _mm512_extracti32x4_epi32::<1>(quarter),
                    _mm512_extracti32x4_epi32::<2>(quarter),
                    _mm512_extracti32x4_epi32::<3>(quarter),
                ];
                for (l, lane) in lanes.into_iter().enumerate() {
                    if 4 * l + j < here {
                        // SAFETY: the word lies within the panel, and four of its rows from `first` on.
                        unsafe { _mm_storeu_si128(panel.add((word + 4 * l + j) * width).cast(), lane) };
                    }
                }
            }
        }
    }
}

/// 16 words of one row from an element on, of which `left` values of k exist.
///
/// # Safety
/// They must.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn along<const KIND: u8>(values: *const u8, index: usize, left: usize) -> __m512i {
    // SAFETY: masked lanes are not read.
    unsafe {
        match KIND {
            F32_VALUES => _mm512_maskz_loadu_epi32(mask(left), values.cast::<i32>().add(index)),
            ROUNDED => {
                let at = values.cast::<f32>().add(index);
                let low = round(_mm512_maskz_loadu_ps(mask(left), at));
                let more = mask(left.saturating_sub(LANES));
                let high = round(_mm512_maskz_loadu_ps(more, at.wrapping_add(LANES)));
                _mm512_permutex2var_epi16(low, _mm512_loadu_epi16(UPPER_HALVES.as_ptr()), high)
            }
            _ => {
                let inside = ((1u64 << left.min(2 * LANES)) - 1) as u32;
                _mm512_maskz_loadu_epi16(inside, values.cast::<i16>().add(index))
            }
        }
    }
}

/// The places of the upper halves of 32 words.
static UPPER_HALVES: [i16; 2 * LANES] = {
    let mut places = [0; 2 * LANES];
    let mut i = 0;
    while i < 2 * LANES {
        places[i] = (2 * i + 1) as i16;
        i += 1;
    }
    places
};

/// Floats whose upper halves are the nearest `bf16`, ties to even; NaN stays NaN.
#[inline]
#[target_feature(enable = "avx512f")]
fn round(x: __m512) -> __m512i {
    let bits = _mm512_castps_si512(x);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(x, x);
    _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x0040_0000))
}

/// Rows lie side by side: every k is copied, `ABREAST` rows at a time so that cache lines are read whole.
///
/// # Safety
/// As [`transpose`]; the source's rows must be one value apart, or it must have one.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn copy<const KIND: u8>(values: *const u8, source: PackSource<'_>, panels: PanelsMut) {
    let PanelsMut { width, words, .. } = panels;
    let rows = source.count.next_multiple_of(width);
    for group in (0..rows).step_by(ABREAST) {
        let (mut parts, mut count, mut first) = ([CopySpan::default(); ABREAST / 8], 0, group);
        while first < rows.min(group + ABREAST) {
            let step = LANES.min(width - first % width);
            let inside = mask(source.count.saturating_sub(first)) & mask(step);
            let offset = first / width * words * width + first % width;
            parts[count] = CopySpan { first, offset, inside, step: mask(step) };
            (count, first) = (count + 1, first + step);
        }
        for word in 0..words {
            let k = word * per_word(KIND);
            let odd = if k + 1 < source.depth { u16::MAX } else { 0 };
            for part in &parts[..count] {
                let index = k * source.k_stride + part.first;
                let at = panels.at.wrapping_add(part.offset + word * width);
                // SAFETY: masked lanes are neither read nor written; the others lie within source and panels.
                unsafe {
                    ahead::<KIND>(values, index + ABREAST);
                    ahead::<KIND>(values, index + ABREAST + source.k_stride);
                    let indices = [index, index + source.k_stride];
                    let row = across::<KIND>(values, indices, [part.inside, part.inside & odd]);
                    _mm512_mask_storeu_epi32(at.cast(), part.step, row);
                }
            }
        }
    }
}

/// Up to 16 rows that go to one panel.
#[derive(Clone, Copy, Default)]
struct CopySpan {
    first: usize,
    offset: usize, // of the first word
    inside: u16,   // lanes that exist in the source
    step: u16,     // lanes of the panel
}

/// Prefetches an element that is read soon, if it exists.
#[inline]
#[target_feature(enable = "avx512f")]
fn ahead<const KIND: u8>(values: *const u8, index: usize) {
    let bytes = if KIND == BF16_VALUES { 2 } else { 4 };
    _mm_prefetch::<_MM_HINT_T1>(values.wrapping_add(index * bytes).cast());
}

/// 16 words side by side: the rows at one k, and in `bf16` at the next.
///
/// # Safety
/// The lanes of the masks must exist at their indices.
#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn across<const KIND: u8>(
    values: *const u8,
    [even, odd]: [usize; 2],
    [first, second]: [u16; 2],
) -> __m512i {
    // SAFETY: masked lanes are not read, and `wrapping_add` may leave the values.
    unsafe {
        let (low, high) = match KIND {
            F32_VALUES => return _mm512_maskz_loadu_epi32(first, values.cast::<i32>().wrapping_add(even)),
            ROUNDED => {
                let at = values.cast::<f32>();
                let low = round(_mm512_maskz_loadu_ps(first, at.wrapping_add(even)));
                let high = round(_mm512_maskz_loadu_ps(second, at.wrapping_add(odd)));
                let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
                return _mm512_or_si512(_mm512_srli_epi32::<16>(low), _mm512_and_si512(high, upper));
            }
            _ => {
                let at = values.cast::<i16>();
                let load = |mask: u16, index| {
                    let both = _mm512_maskz_loadu_epi16(u32::from(mask), at.wrapping_add(index));
                    _mm512_castsi512_si256(both)
                };
                (load(first, even), load(second, odd))
            }
        };
        _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(high)))
    }
}
