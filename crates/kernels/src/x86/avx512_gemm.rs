//! Tiles of training's products for AVX-512, in `f32` and in `bf16`.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::avx512_gemm_pack::{BF16_VALUES, F32_VALUES, ROUNDED, pack};
use crate::gemm::matrix::{PackSource, Values};
use crate::gemm::micro::{GemmTile, Micro, Write};
use crate::gemm::portable;
use std::arch::x86_64::*;

/// 12 × 32 sums, 2 vectors of the right panel, and left values broadcast from memory, fill 27 of the 32
/// registers. 8 × 48 is 10 % slower if the operands come from memory.
const ROWS: usize = 12;
const VECTORS: usize = 2;
const LANES: usize = 16;
const COLUMNS: usize = VECTORS * LANES;

/// Handed out by the AVX-512 table alone.
pub(super) static F32: Micro = Micro {
    rows: ROWS,
    columns: COLUMNS,
    per_word: 1,
    step: 1,
    pack_left: pack_f32,
    pack_right: pack_f32,
    tiles: |panels, out| panels.each(ROWS, COLUMNS, out, run::<false>),
};

/// As [`F32`]; where the processor does not multiply `bf16`, it widens them.
pub(super) static BF16: Micro = Micro {
    rows: ROWS,
    columns: COLUMNS,
    per_word: 2,
    step: 1,
    pack_left: pack_bf16,
    pack_right: pack_bf16,
    tiles: |panels, out| panels.each(ROWS, COLUMNS, out, run::<true>),
};

fn pack_f32(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    match source.values {
        Values::F32(_) => pack::<F32_VALUES>(source, width, panels),
        Values::Bf16(_) => portable::pack(source, width, panels),
    }
}

fn pack_bf16(source: PackSource<'_>, width: usize, panels: &mut [u32]) {
    match source.values {
        Values::F32(_) => pack::<ROUNDED>(source, width, panels),
        Values::Bf16(_) => pack::<BF16_VALUES>(source, width, panels),
    }
}

fn run<const BF16: bool>(tile: GemmTile<'_>, out: &mut [f32]) {
    let words = tile.left.len() / ROWS;
    assert!(tile.left.len() == words * ROWS && tile.right.len() == words * COLUMNS, "panels of one depth");
    assert!((1..=ROWS).contains(&tile.rows) && (1..=COLUMNS).contains(&tile.columns), "a part of a tile");
    assert!(tile.columns <= tile.stride || tile.rows == 1, "rows that do not overlap");
    assert!(out.len() >= (tile.rows - 1) * tile.stride + tile.columns, "an output of the tile's shape");
    for row in 0..tile.rows {
        for v in 0..=VECTORS {
            // Prefetched now, it is in the cache when the sums are done.
            // SAFETY: a prefetch of an address that does not exist is ignored.
            unsafe {
                _mm_prefetch::<_MM_HINT_T0>(out.as_ptr().wrapping_add(row * tile.stride + v * LANES).cast())
            };
        }
    }
    // SAFETY: the shapes were checked; the statics are handed out only where the processor has the
    // instructions.
    unsafe {
        match BF16 {
            false => f32(tile, words, out.as_mut_ptr()),
            true if is_x86_feature_detected!("avx512bf16") => bf16(tile, words, out.as_mut_ptr()),
            true => widened(tile, words, out.as_mut_ptr()),
        }
    }
}

type Sums = [[__m512; VECTORS]; ROWS];

/// # Safety
/// The panels must hold `words` words of k, and `out` the tile.
#[target_feature(enable = "avx512f")]
unsafe fn f32(tile: GemmTile<'_>, words: usize, out: *mut f32) {
    let mut sums: Sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    let (mut left, mut right) = (tile.left.as_ptr().cast::<f32>(), tile.right.as_ptr().cast::<f32>());
    for _ in 0..words {
        // SAFETY: the panels hold `words` of these, and the pointers step through them.
        unsafe {
            let b: [_; VECTORS] = std::array::from_fn(|v| _mm512_loadu_ps(right.add(v * LANES)));
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = _mm512_set1_ps(*left.add(i));
                for v in 0..VECTORS {
                    sums[v] = _mm512_fmadd_ps(a, b[v], sums[v]);
                }
            }
            (left, right) = (left.add(ROWS), right.add(COLUMNS));
        }
    }
    // SAFETY: the caller's promise.
    unsafe { put(&sums, tile, out) }
}

/// # Safety
/// As [`f32`].
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn bf16(tile: GemmTile<'_>, words: usize, out: *mut f32) {
    let mut sums: Sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    let (mut left, mut right) = (tile.left.as_ptr().cast::<i32>(), tile.right.as_ptr().cast::<i32>());
    for _ in 0..words {
        // SAFETY: as in `f32`; vectors of `bf16` are vectors of as many bits.
        unsafe {
            let b: [__m512bh; VECTORS] = std::array::from_fn(|v| {
                std::mem::transmute::<__m512i, __m512bh>(_mm512_loadu_epi32(right.add(v * LANES)))
            });
            for (i, sums) in sums.iter_mut().enumerate() {
                let a = std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(*left.add(i)));
                for v in 0..VECTORS {
                    sums[v] = _mm512_dpbf16_ps(sums[v], a, b[v]);
                }
            }
            (left, right) = (left.add(ROWS), right.add(COLUMNS));
        }
    }
    // SAFETY: the caller's promise.
    unsafe { put(&sums, tile, out) }
}

/// # Safety
/// As [`f32`].
#[target_feature(enable = "avx512f")]
unsafe fn widened(tile: GemmTile<'_>, words: usize, out: *mut f32) {
    let mut sums: Sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    let (mut left, mut right) = (tile.left.as_ptr().cast::<i32>(), tile.right.as_ptr().cast::<i32>());
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    for _ in 0..words {
        // SAFETY: as in `f32`.
        unsafe {
            for v in 0..VECTORS {
                let b = _mm512_loadu_epi32(right.add(v * LANES));
                let (odd, even) = (_mm512_and_si512(b, upper), _mm512_slli_epi32::<16>(b));
                for (i, sums) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_epi32(*left.add(i));
                    for (a, b) in [(_mm512_and_si512(a, upper), odd), (_mm512_slli_epi32::<16>(a), even)] {
                        sums[v] = _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sums[v]);
                    }
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
#[target_feature(enable = "avx512f")]
unsafe fn put(sums: &Sums, tile: GemmTile<'_>, out: *mut f32) {
    let alpha = _mm512_set1_ps(tile.alpha);
    for (row, sums) in sums.iter().enumerate() {
        if row == tile.rows {
            break;
        }
        for (v, &sum) in sums.iter().enumerate() {
            let inside = tile.columns.saturating_sub(v * LANES).min(LANES);
            let mask = ((1u32 << inside) - 1) as u16;
            let at = out.wrapping_add(row * tile.stride + v * LANES);
            // SAFETY: masked lanes are neither read nor written, and the others lie within the output.
            unsafe {
                let before = match tile.write {
                    Write::Add => _mm512_maskz_loadu_ps(mask, at),
                    Write::Replace => _mm512_setzero_ps(),
                };
                _mm512_mask_storeu_ps(at, mask, _mm512_fmadd_ps(alpha, sum, before));
            }
        }
    }
}
