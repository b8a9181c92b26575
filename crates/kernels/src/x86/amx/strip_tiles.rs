//! Products of strips in tiles, for many tokens. Few tokens are multiplied by VNNI.
//!
//! A block of 16 rows of a strip is a right factor as it lies there: a row of the tile is four k of 16 rows.
//! The left factor is the codes of 16 tokens. The sums of a block are exact whole numbers, so that
//! scaling them here as VNNI's kernel does gives the same bits.
#![allow(unsafe_code, reason = "tiles are reached through assembly, vectors through pointers")]

use super::tile::{LINE, SIDE, TileConfig, TileShape, TileSums};
use crate::aligned::Aligned;
use crate::columns::ColumnsMut;
use crate::factors::StripFactors;
use crate::strips::block_quantized::{BlockQuantized, FEW};
use crate::strips::layout::{QUAD, STRIP, StripFormat};
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Bytes of four k of a strip's rows, one byte each.
const CODES: usize = STRIP * QUAD;

thread_local! {
    /// A strip of four-bit codes, a byte each.
    static WIDENED: RefCell<Aligned<u8>> = RefCell::default();
}

/// See [`Table::product_strips`](crate::Table::product_strips).
pub(super) fn product(factors: StripFactors<'_>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    if tokens <= FEW {
        return crate::x86::avx512::product_strips(factors, out);
    }
    let bytes = factors.check(tokens, rows);
    let StripFactors { format, x, weight } = factors;
    assert!(x.places.is_multiple_of(SIDE), "whole tiles of tokens");
    let block = format.block();
    let right = TileShape { rows: block / QUAD, bytes: LINE };
    // SAFETY: this table is handed out only where there are tiles.
    let _config = unsafe { TileConfig::set(TileShape::tall(LINE), TileShape::tall(block), right) };
    let (start, stride) = (out.as_mut_ptr(), out.stride());
    WIDENED.with_borrow_mut(|widened| {
        for (first, strip) in (0..rows).step_by(STRIP).zip(weight.chunks_exact(bytes)) {
            let right = match format.bits() {
                8 => StripCodes { strip, codes: strip, step: format.block_bytes() },
                _ => {
                    let out = widened.resize(x.blocks * block / QUAD * CODES);
                    // SAFETY: this table has the instructions.
                    unsafe { widen(strip, out) };
                    StripCodes { strip, codes: widened.values(), step: block / QUAD * CODES }
                }
            };
            for token in (0..tokens).step_by(SIDE) {
                for half in 0..(rows - first).div_ceil(SIDE).min(STRIP / SIDE) {
                    let row = first + half * SIDE;
                    let (tokens, rows) = (SIDE.min(tokens - token), SIDE.min(rows - row));
                    let out = start.wrapping_add(token * stride + row);
                    let tile = OneTile { token, tokens, half, rows, out, stride };
                    // SAFETY: strip and tokens have their blocks, the output these elements; this table has
                    // the instructions, and the tiles are configured.
                    unsafe { multiply(format, x, right, tile) };
                }
            }
        }
    });
}

/// Codes of a strip, a byte each, `step` bytes from block to block; its scales stand in `strip`.
#[derive(Clone, Copy)]
struct StripCodes<'a> {
    strip: &'a [u8],
    codes: &'a [u8],
    step: usize,
}

/// Up to 16 tokens and 16 rows of a strip, and where their sums go.
#[derive(Clone, Copy)]
struct OneTile {
    token: usize, // the first
    tokens: usize,
    half: usize, // of the strip
    rows: usize,
    out: *mut f32, // of the first token and row
    stride: usize,
}

/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn widen(strip: &[u8], out: &mut [u8]) {
    let low = _mm512_set1_epi8(15);
    let block = StripFormat::Int4.block_bytes(); // and Q4_0's
    for (block, out) in
        strip.chunks_exact(block).zip(out.chunks_exact_mut(StripFormat::Int4.block() / QUAD * CODES))
    {
        for (two, out) in block.chunks_exact(CODES).zip(out.chunks_exact_mut(2 * CODES)) {
            for v in 0..CODES / LINE {
                // SAFETY: `two` has `CODES` bytes and `out` twice as many.
                unsafe {
                    let stored = _mm512_loadu_si512(two.as_ptr().add(v * LINE).cast());
                    let high = _mm512_and_si512(_mm512_srli_epi16::<4>(stored), low);
                    let to = out.as_mut_ptr().add(v * LINE);
                    _mm512_storeu_si512(to.cast(), _mm512_and_si512(stored, low));
                    _mm512_storeu_si512(to.add(CODES).cast(), high);
                }
            }
        }
    }
}

/// The products of one tile.
///
/// # Safety
/// Tokens and strip must have their blocks, the output its elements; the tiles must be configured for
/// `format`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn multiply(format: StripFormat, x: BlockQuantized<'_>, right: StripCodes<'_>, tile: OneTile) {
    let OneTile { token, tokens, half, rows, out, stride } = tile;
    // A block is multiplied before the block before it is added, because what a tile has stored cannot be
    // loaded at once.
    let mut whole = [const { TileSums([0; SIDE * SIDE]) }; 2]; // [tokens, rows]
    let multiply = |block: usize, whole: &mut TileSums| {
        let b = right.codes[block * right.step + half * LINE..].as_ptr();
        // SAFETY: both factors have this block: 16 tokens and 16 rows.
        unsafe { block_sums(x.codes(block, token).as_ptr(), format.block(), b, whole) }
    };
    multiply(0, &mut whole[0]);
    let mut sums = [_mm512_setzero_ps(); SIDE];
    for block in 0..x.blocks {
        if block + 1 < x.blocks {
            multiply(block + 1, &mut whole[(block + 1) % 2]);
        }
        let scales = (block + 1) * format.block_bytes() - (2 - half) * 2 * SIDE;
        let of_rows = right.strip[scales..][..2 * SIDE].as_ptr();
        let (of_tokens, offsets) = (&x.scales(block, token)[..SIDE], &x.offsets(block, token)[..SIDE]);
        // SAFETY: 16 scales of 2 bytes; `whole` has 16 vectors.
        unsafe {
            let of_rows = _mm256_loadu_si256(of_rows.cast());
            let of_rows = match format.has_halves() {
                true => _mm512_cvtph_ps(of_rows),
                false => _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(of_rows))),
            };
            for (t, sum) in sums.iter_mut().enumerate() {
                let whole = _mm512_load_si512(whole[block % 2].0.as_ptr().add(t * SIDE).cast());
                let whole = _mm512_cvtepi32_ps(_mm512_add_epi32(whole, _mm512_set1_epi32(offsets[t])));
                let scale = _mm512_mul_ps(of_rows, _mm512_set1_ps(of_tokens[t]));
                *sum = _mm512_fmadd_ps(scale, whole, *sum);
            }
        }
    }
    for (t, sum) in sums.into_iter().enumerate().take(tokens) {
        // SAFETY: the caller's promise; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(out.add(t * stride), ((1u32 << rows) - 1) as u16, sum) };
    }
}

/// 16 tokens by 16 rows at one block.
///
/// # Safety
/// `left` must have 16 tokens, `width` bytes each, and `right` 16 rows of a block; the tiles must be
/// configured.
#[inline(always)]
unsafe fn block_sums(left: *const i8, width: usize, right: *const u8, sums: &mut TileSums) {
    // SAFETY: the caller's promise; tiles are used by this file's assembly alone, and hold nothing after it.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tileloadd tmm4, [{left} + {width}*1]",
            "tileloadd tmm6, [{right} + {codes}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tilestored [{sums} + {line}*1], tmm0",
            left = in(reg) left,
            width = in(reg) width,
            right = in(reg) right,
            codes = in(reg) CODES,
            sums = in(reg) sums.0.as_mut_ptr(),
            line = in(reg) LINE,
            out("tmm0") _, out("tmm4") _, out("tmm6") _,
            options(nostack),
        );
    }
}
