//! Products of ternary strips for AVX-512 with VNNI: four codes by four inputs in each of 16 lanes.
//!
//! A line is read once and gives four vectors of codes for each half of its rows.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(clippy::needless_range_loop, reason = "counts of registers, fixed for the compiler")]

use crate::columns::ColumnsMut;
use crate::strips::STRIP;
use crate::ternary::{BLOCK, LINE, QUAD, QUADS, Quantised, STEP, Ternary};
use std::arch::x86_64::*;

/// Tokens of a tile: 2 × 8 sums, a quad's codes and the line fill 21 of the 32 registers.
const TOKENS: usize = 8;
/// Vectors of a line, and their bytes.
const VECTORS: usize = 2;
const BYTES: usize = LINE / VECTORS;
/// Bytes asked for ahead of those multiplied.
const AHEAD: usize = 1 << 10;

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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
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
            // of more than `TOKENS` tokens are whole multiples of it, so that a tile lies within one.
            unsafe {
                match tokens - token {
                    1 => multiply::<1, QUADS>(tile, strip),
                    2 => multiply::<2, QUADS>(tile, strip),
                    3 => multiply::<3, 2>(tile, strip),
                    4 => multiply::<4, 2>(tile, strip),
                    5 => multiply::<5, 1>(tile, strip),
                    6 => multiply::<6, 1>(tile, strip),
                    7 => multiply::<7, 1>(tile, strip),
                    _ => multiply::<TOKENS, 1>(tile, strip),
                }
            }
        }
    }
}

/// The products of `T` tokens, each in so many independent `CHAINS` of sums: alone they would wait for themselves.
///
/// # Safety
/// The strip must have the tokens' blocks, the tokens stand in one group, the output have its elements.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply<const T: usize, const CHAINS: usize>(tile: Tile<'_>, strip: &[u8]) {
    let Tile { x, token, .. } = tile;
    let low = _mm512_set1_epi8(3);
    let mut sums = [[[_mm512_setzero_si512(); VECTORS]; CHAINS]; T];
    let mut stored = strip.as_ptr();
    for block in 0..x.blocks {
        let inputs = x.codes(block, token).as_ptr();
        for step in (0..BLOCK).step_by(STEP) {
            // SAFETY: the strip has so many lines, and each token `BLOCK` codes of each block; what is asked for
            // ahead need not exist.
            unsafe {
                for v in 0..VECTORS {
                    _mm_prefetch::<_MM_HINT_T0>(stored.wrapping_add(AHEAD + v * BYTES).cast());
                }
                let mut line = [0, 1].map(|v: usize| _mm512_loadu_si512(stored.add(v * BYTES).cast()));
                for quad in 0..QUADS {
                    let codes = line.map(|line| _mm512_and_si512(line, low));
                    line = line.map(|line| _mm512_srli_epi16::<2>(line));
                    for t in 0..T {
                        let four = inputs.add(t * BLOCK + step + quad * QUAD).cast::<i32>();
                        let four = _mm512_set1_epi32(four.read_unaligned());
                        for v in 0..VECTORS {
                            let sum = &mut sums[t][quad % CHAINS][v];
                            *sum = _mm512_dpbusd_epi32(*sum, codes[v], four);
                        }
                    }
                }
                stored = stored.add(LINE);
            }
        }
    }
    for (t, chains) in sums.iter().enumerate() {
        let (offset, scale) = (_mm512_set1_epi32(x.offsets(token)[t]), x.steps(token)[t] * tile.step);
        for v in 0..VECTORS {
            let whole = chains.iter().fold(offset, |whole, chain| _mm512_add_epi32(whole, chain[v]));
            let sum = _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(scale));
            let inside = tile.rows.saturating_sub(v * 16).min(16);
            let at = tile.out.wrapping_add(t * tile.stride + v * 16);
            // SAFETY: masked lanes are not written, and the others lie within the output.
            unsafe { _mm512_mask_storeu_ps(at, ((1u32 << inside) - 1) as u16, sum) };
        }
    }
}
