//! Products of strips for AVX-512 with VNNI: four codes by four inputs in each of 16 lanes.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(clippy::needless_range_loop, reason = "counts of registers, fixed for the compiler")]

use crate::columns::ColumnsMut;
use crate::strips::{Codes, QUAD, Quantised, STRIP, Strips};
use std::arch::x86_64::*;

/// Tokens of a tile: 2 × 6 sums of a block, 2 × 6 of all, codes and inputs fill 29 of the 32 registers.
const TOKENS: usize = 6;
/// Vectors of a strip's rows, and bytes of their codes at four k.
const VECTORS: usize = 2;
const CODES: usize = STRIP * QUAD;
const LINE: usize = 64;
/// Bytes asked for ahead of those multiplied.
const AHEAD: usize = 2 << 10;

/// Some tokens of a product, and where their sums with one strip go.
#[derive(Clone, Copy)]
struct Tile<'a> {
    x: Quantised<'a>,
    token: usize,
    out: *mut f32, // of the first token and row
    stride: usize,
    rows: usize,
}

/// See [`Table::product_strips`](crate::Table::product_strips).
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn product(factors: Strips<'_>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    let bytes = factors.check(tokens, rows);
    let Strips { codes, x, weight } = factors;
    let tiles = tokens.div_ceil(TOKENS);
    for (first, strip) in (0..rows).step_by(STRIP).zip(weight.chunks_exact(bytes)) {
        for tile in 0..tiles {
            // Tiles of like sizes: 8 tokens are 4 and 4.
            let [token, end] = [tile, tile + 1].map(|t| tokens * t / tiles);
            let stride = out.stride();
            let start = out.as_mut_ptr().wrapping_add(token * stride + first);
            let part = Tile { x, token, out: start, stride, rows: STRIP.min(rows - first) };
            // SAFETY: `check` says that tokens and strip have their blocks; the output has these elements.
            unsafe {
                match codes {
                    Codes::Int8 => with_tokens::<Int8>(part, strip, end - token),
                    Codes::Int4 => with_tokens::<Int4>(part, strip, end - token),
                }
            }
        }
    }
}

/// How stored codes become vectors of them.
trait Stored {
    const CODES: Codes;
    /// Quads of k in a vector.
    const QUADS: usize;
    /// # Safety
    /// The processor must have the instructions.
    unsafe fn quad(stored: __m512i, quad: usize) -> __m512i;
}

struct Int8;
struct Int4;

impl Stored for Int8 {
    const CODES: Codes = Codes::Int8;
    const QUADS: usize = 1;
    #[inline(always)]
    unsafe fn quad(stored: __m512i, _: usize) -> __m512i {
        stored
    }
}

impl Stored for Int4 {
    const CODES: Codes = Codes::Int4;
    const QUADS: usize = 2;
    #[inline(always)]
    unsafe fn quad(stored: __m512i, quad: usize) -> __m512i {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm512_set1_epi8(15);
            if quad == 0 {
                _mm512_and_si512(stored, low)
            } else {
                _mm512_and_si512(_mm512_srli_epi16::<4>(stored), low)
            }
        }
    }
}

/// # Safety
/// Of this and what follows: the strip must have a tile's blocks, the tile its tokens, the output its elements.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn with_tokens<S: Stored>(tile: Tile<'_>, strip: &[u8], tokens: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match tokens {
            1 => multiply::<S, 1>(tile, strip),
            2 => multiply::<S, 2>(tile, strip),
            3 => multiply::<S, 3>(tile, strip),
            4 => multiply::<S, 4>(tile, strip),
            5 => multiply::<S, 5>(tile, strip),
            _ => multiply::<S, TOKENS>(tile, strip),
        }
    }
}

/// # Safety
/// As [`with_tokens`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn multiply<S: Stored, const T: usize>(tile: Tile<'_>, strip: &[u8]) {
    let Tile { x, token, .. } = tile;
    let (blocks, codes) = (x.blocks, S::CODES);
    let steps = codes.block() / QUAD / S::QUADS;
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; T];
    let mut stored = strip.as_ptr();
    for block in 0..blocks {
        let inputs = x.codes(block, token).as_ptr();
        let (scales, offsets) = (&x.scales(block, token)[..T], &x.offsets(block, token)[..T]);
        // SAFETY: the strip has `blocks` of `steps` pairs of vectors and a vector of scales, the tokens their
        // inputs; what is asked for ahead need not exist.
        unsafe {
            let mut whole = [[_mm512_setzero_si512(); VECTORS]; T];
            for t in 0..T {
                whole[t] = [_mm512_set1_epi32(offsets[t]); VECTORS];
            }
            for step in 0..steps {
                for v in 0..VECTORS {
                    let ahead = stored.wrapping_add(AHEAD + v * LINE);
                    _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
                }
                let vectors = [0, 1].map(|v: usize| _mm512_loadu_si512(stored.add(v * LINE).cast()));
                for quad in 0..S::QUADS {
                    let stored = [S::quad(vectors[0], quad), S::quad(vectors[1], quad)];
                    let at = (step * S::QUADS + quad) * QUAD;
                    for t in 0..T {
                        let four = inputs.add(t * codes.block() + at).cast::<i32>();
                        let four = _mm512_set1_epi32(four.read_unaligned());
                        for v in 0..VECTORS {
                            whole[t][v] = _mm512_dpbusd_epi32(whole[t][v], stored[v], four);
                        }
                    }
                }
                stored = stored.add(CODES);
            }
            let halves = [0, 1].map(|v: usize| _mm256_loadu_si256(stored.add(v * LINE / 2).cast()));
            let of_rows =
                halves.map(|h| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(h))));
            stored = stored.add(LINE);
            for t in 0..T {
                let scale = _mm512_set1_ps(scales[t]);
                for v in 0..VECTORS {
                    let scale = _mm512_mul_ps(of_rows[v], scale);
                    sums[t][v] = _mm512_fmadd_ps(scale, _mm512_cvtepi32_ps(whole[t][v]), sums[t][v]);
                }
            }
        }
    }
    for (t, sums) in sums.iter().enumerate() {
        for (v, &sum) in sums.iter().enumerate() {
            let inside = tile.rows.saturating_sub(v * 16).min(16);
            let at = tile.out.wrapping_add(t * tile.stride + v * 16);
            // SAFETY: masked lanes are not written, and the others lie within the output.
            unsafe { _mm512_mask_storeu_ps(at, ((1u32 << inside) - 1) as u16, sum) };
        }
    }
}
