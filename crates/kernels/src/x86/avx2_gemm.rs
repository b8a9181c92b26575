//! Tiles of training's products for AVX2.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::avx2_gemm_pack::{F32_VALUES, ROUNDED, WIDENED, pack};
use crate::gemm::matrix::{PackSource, Values};
use crate::gemm::micro::{GemmTile, Micro, Write};
use crate::gemm::portable;
use std::arch::x86_64::*;

/// 6 × 16 sums, 2 vectors of the right panel and 2 broadcasts of the left one fill the 16 registers. With
/// 4 × 24 the compiler keeps one sum in memory, and the product waits for it.
const ROWS: usize = 6;
const VECTORS: usize = 2;
const LANES: usize = 8;
const COLUMNS: usize = VECTORS * LANES;

/// Handed out by the AVX2 table alone.
pub(super) static F32: Micro = Micro {
    rows: ROWS,
    columns: COLUMNS,
    per_word: 1,
    step: 1,
    pack_left: pack_f32::<ROWS>,
    pack_right: pack_f32::<COLUMNS>,
    tiles: |panels, out| panels.each(ROWS, COLUMNS, out, run),
};

/// As [`F32`]. This instruction set multiplies no `bf16`: factors are rounded while they are packed, and
/// stay `f32`.
pub(super) static BF16: Micro =
    Micro { pack_left: pack_bf16::<ROWS>, pack_right: pack_bf16::<COLUMNS>, ..F32 };

fn pack_f32<const WIDTH: usize>(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    assert_eq!(width, WIDTH, "the tile's panels");
    match source.values {
        Values::F32(_) => pack::<F32_VALUES, WIDTH>(source, panels),
        Values::Bf16(_) => portable::pack(source, width, panels),
    }
}

fn pack_bf16<const WIDTH: usize>(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    assert_eq!(width, WIDTH, "the tile's panels");
    match source.values {
        Values::F32(_) => pack::<ROUNDED, WIDTH>(source, panels),
        Values::Bf16(_) => pack::<WIDENED, WIDTH>(source, panels),
    }
}

fn run(tile: GemmTile<'_>, out: &mut [f32]) {
    let words = tile.left.len() / ROWS;
    assert!(tile.left.len() == words * ROWS && tile.right.len() == words * COLUMNS, "panels of one depth");
    assert!((1..=ROWS).contains(&tile.rows) && (1..=COLUMNS).contains(&tile.columns), "a part of a tile");
    assert!(tile.columns <= tile.stride || tile.rows == 1, "rows that do not overlap");
    assert!(out.len() >= (tile.rows - 1) * tile.stride + tile.columns, "an output of the tile's shape");
    // SAFETY: the shapes were checked; the statics are handed out only where the processor has the
    // instructions.
    unsafe { multiply(tile, words, out.as_mut_ptr()) }
}

type Sums = [[__m256; VECTORS]; ROWS];

/// # Safety
/// The panels must hold `words` words of k, and `out` the tile.
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply(tile: GemmTile<'_>, words: usize, out: *mut f32) {
    for row in 0..tile.rows {
        // Prefetched now, it is in the cache when the sums are done.
        _mm_prefetch::<_MM_HINT_T0>(out.wrapping_add(row * tile.stride).cast());
        _mm_prefetch::<_MM_HINT_T0>(out.wrapping_add(row * tile.stride + COLUMNS - 1).cast());
    }
    let mut sums: Sums = [[_mm256_setzero_ps(); VECTORS]; ROWS];
    let (mut left, mut right) = (tile.left.as_ptr().cast::<f32>(), tile.right.as_ptr().cast::<f32>());
    for _ in 0..words {
        // SAFETY: the panels hold `words` of these, and the pointers step through them.
        unsafe {
            let b: [_; VECTORS] = std::array::from_fn(|v| _mm256_loadu_ps(right.add(v * LANES)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*left.add(i));
                for v in 0..VECTORS {
                    sums[v] = _mm256_fmadd_ps(a, b[v], sums[v]);
                }
            }
            (left, right) = (left.add(ROWS), right.add(COLUMNS));
        }
    }
    // SAFETY: the caller's promise.
    unsafe { put(&sums, tile, out) }
}

/// # Safety
/// `out` must hold the tile.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn put(sums: &Sums, tile: GemmTile<'_>, out: *mut f32) {
    let alpha = _mm256_set1_ps(tile.alpha);
    let masks: [_; VECTORS] = std::array::from_fn(|v| first_lanes(tile.columns.saturating_sub(v * LANES)));
    for (row, sums) in sums.iter().enumerate() {
        if row == tile.rows {
            break;
        }
        for (v, (&sum, &mask)) in sums.iter().zip(&masks).enumerate() {
            let at = out.wrapping_add(row * tile.stride + v * LANES);
            // SAFETY: masked lanes are neither read nor written, and the others lie within the output.
            unsafe {
                let before = match tile.write {
                    Write::Add => _mm256_maskload_ps(at, mask),
                    Write::Replace => _mm256_setzero_ps(),
                };
                let value = _mm256_fmadd_ps(alpha, sum, before);
                // A masked store takes many cycles on some processors.
                if tile.columns == COLUMNS {
                    _mm256_storeu_ps(at, value);
                } else {
                    _mm256_maskstore_ps(at, mask, value);
                }
            }
        }
    }
}

/// A mask of the first `count` lanes, at most all.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn first_lanes(count: usize) -> __m256i {
    let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    _mm256_cmpgt_epi32(_mm256_set1_epi32(count.min(LANES) as i32), lanes)
}
