//! Tiles of training's products for AVX2.
#![allow(unsafe_code, reason = "SIMD: functions for one instruction set")]

use crate::gemm::micro::{GemmTile, Micro};
use crate::gemm::portable;

const ROWS: usize = 4;
/// 4 × 24 sums, 3 vectors of the right panel and a broadcast fill the 16 registers.
const COLUMNS: usize = 24;

/// Handed out by the AVX2 table alone.
pub(super) static F32: Micro = Micro {
    rows: ROWS,
    columns: COLUMNS,
    per_word: 1,
    step: 1,
    pack_left: portable::pack,
    pack_right: portable::pack,
    // SAFETY: as the static.
    tiles: |panels, out| panels.each(ROWS, COLUMNS, out, |tile, out| unsafe { f32(tile, out) }),
};

/// As [`F32`]; this instruction set multiplies no `bf16`, so it widens them.
pub(super) static BF16: Micro = Micro {
    rows: ROWS,
    columns: COLUMNS,
    per_word: 2,
    step: 1,
    pack_left: portable::pack_bf16,
    pack_right: portable::pack_bf16,
    // SAFETY: as the static.
    tiles: |panels, out| panels.each(ROWS, COLUMNS, out, |tile, out| unsafe { bf16(tile, out) }),
};

#[target_feature(enable = "avx2,fma")]
fn f32(tile: GemmTile<'_>, out: &mut [f32]) {
    portable::tile::<true, ROWS, COLUMNS>(tile, out);
}

#[target_feature(enable = "avx2,fma")]
fn bf16(tile: GemmTile<'_>, out: &mut [f32]) {
    portable::tile_bf16::<true, ROWS, COLUMNS>(tile, out);
}
