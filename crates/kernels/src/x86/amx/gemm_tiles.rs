//! Training's products of `bf16` in tiles: 32 × 32 sums, four tiles of them.
#![allow(unsafe_code, reason = "tiles are reached through assembly, vectors through pointers")]

use super::bf16_loops::{FourTiles, TileSteps};
use super::gemm_tile_pack::pack;
use super::tile::{LINE, PAIR, SIDE, TileConfig, TileShape};
use crate::gemm::micro::{GemmTile, Micro, Panels, Write};
use std::arch::x86_64::*;

/// Handed out by this table alone. A tile is summed over 16 words at a time, whatever its neighbours; as in
/// `vdpbf16ps`, subnormal factors count as 0.
pub(super) static BF16: Micro = Micro {
    rows: PAIR,
    columns: PAIR,
    per_word: 2,
    step: SIDE,
    pack_left: pack::<true>,
    pack_right: pack::<false>,
    tiles,
};

/// The tiles are configured once for all tiles of the output: that takes as long as a small tile.
fn tiles(panels: Panels<'_>, out: &mut [f32]) {
    let whole = TileShape::tall(LINE);
    // SAFETY: this table is handed out only where there are tiles.
    let _config = unsafe { TileConfig::set(whole, whole, whole) };
    panels.each(PAIR, PAIR, out, |tile, out| {
        assert!(
            tile.left.len() == tile.right.len() && tile.left.len().is_multiple_of(PAIR * SIDE),
            "whole steps"
        );
        assert!((1..=PAIR).contains(&tile.rows) && (1..=PAIR).contains(&tile.columns), "a part of a tile");
        assert!(tile.columns <= tile.stride || tile.rows == 1, "rows that do not overlap");
        assert!(out.len() >= (tile.rows - 1) * tile.stride + tile.columns, "an output of the tile's shape");
        // SAFETY: checked, and the tiles are configured.
        unsafe { one(tile, out.as_mut_ptr()) }
    });
}

/// # Safety
/// The panels must have whole steps, as [`pack`] writes them; `out` must hold the tile; the tiles must be
/// configured.
unsafe fn one(tile: GemmTile<'_>, out: *mut f32) {
    let steps = tile.left.len() / (PAIR * SIDE);
    let steps_of_k = TileSteps {
        a: tile.left.as_ptr().cast(),
        a_next: steps * SIDE * LINE,
        b: tile.right.as_ptr().cast(),
        b_stride: 2 * LINE,
        b_next: LINE,
        steps,
    };
    let plain = tile.write == Write::Replace && tile.alpha == 1.0;
    // SAFETY: the caller's promise; a prefetch of an address that does not exist is ignored.
    unsafe {
        for row in 0..tile.rows {
            // Prefetched now, it is in the cache when the sums are done.
            for column in [0, SIDE, PAIR - 1] {
                _mm_prefetch::<_MM_HINT_ET0>(out.wrapping_add(row * tile.stride + column).cast());
            }
        }
        FourTiles::clear();
        steps_of_k.multiply(tile.rows.div_ceil(SIDE), tile.columns.div_ceil(SIDE));
        if plain && tile.rows == PAIR && tile.columns == PAIR {
            FourTiles::store(out, tile.stride);
            return;
        }
        let mut sums = SumsOnTheWay([const { std::mem::MaybeUninit::uninit() }; PAIR * PAIR]);
        let sums = sums.0.as_mut_ptr().cast::<f32>();
        FourTiles::store(sums, PAIR);
        put(sums, plain, tile, out);
    }
}

/// Sums between the tiles and the output.
#[repr(align(64))]
struct SumsOnTheWay([std::mem::MaybeUninit<f32>; PAIR * PAIR]);

/// # Safety
/// There must be 32 × 32 sums, and `out` must hold the tile.
#[target_feature(enable = "avx512f")]
unsafe fn put(sums: *const f32, plain: bool, tile: GemmTile<'_>, out: *mut f32) {
    let alpha = _mm512_set1_ps(tile.alpha);
    for row in 0..tile.rows {
        for v in 0..2 {
            let inside = tile.columns.saturating_sub(v * SIDE).min(SIDE);
            let mask = ((1u32 << inside) - 1) as u16;
            let at = out.wrapping_add(row * tile.stride + v * SIDE);
            // SAFETY: masked lanes are neither read nor written, and the others lie within the output.
            unsafe {
                let sum = _mm512_load_ps(sums.add(row * PAIR + v * SIDE));
                let scaled = match tile.write {
                    _ if plain => sum,
                    Write::Replace => _mm512_mul_ps(alpha, sum),
                    Write::Add => _mm512_fmadd_ps(alpha, sum, _mm512_maskz_loadu_ps(mask, at)),
                };
                _mm512_mask_storeu_ps(at, mask, scaled);
            }
        }
    }
}
