//! Products of strips in tiles, for many tokens; few are VNNI's.
//!
//! A block of 16 rows of a strip is a right factor as it lies there: a row of the tile is four k of 16 rows.
//! The left factor is the codes of 16 tokens. The sums of a block are exact whole numbers, so that
//! scaling them here as VNNI's kernel does gives the same bits.
#![allow(unsafe_code, reason = "tiles are reached through assembly, vectors through pointers")]

use super::{LINE, SIDE, Shapes};
use crate::columns::ColumnsMut;
use crate::strips::{Codes, QUAD, Quantised, STRIP, Strips};
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Up to so many tokens VNNI is faster.
const FEW_TOKENS: usize = 8;
/// Tokens that go through a strip at once: two tiles.
const GROUP: usize = 2 * SIDE;
/// Bytes of four k of a strip's rows, one byte each.
const CODES: usize = STRIP * QUAD;

thread_local! {
    /// A strip of four-bit codes, a byte each.
    static WIDENED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// See [`Table::product_strips`](crate::Table::product_strips).
pub(super) fn product(factors: Strips<'_>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    if tokens <= FEW_TOKENS {
        // SAFETY: processors with tiles have VNNI, and this table asks for it.
        return unsafe { super::super::strips512::product(factors, out) };
    }
    let bytes = factors.check(tokens, rows);
    let Strips { codes, x, weight } = factors;
    assert!(
        x.codes.len() >= tokens.next_multiple_of(SIDE) * x.blocks * codes.block(),
        "whole tiles of tokens"
    );
    let block = codes.block();
    // SAFETY: this table is handed out only where there are tiles.
    let _shapes = unsafe { Shapes::set((SIDE, LINE), (SIDE, block), (block / QUAD, LINE)) };
    let (start, stride) = (out.as_mut_ptr(), out.stride());
    WIDENED.with_borrow_mut(|widened| {
        for (first, strip) in (0..rows).step_by(STRIP).zip(weight.chunks_exact(bytes)) {
            let right = match codes {
                Codes::Int8 => Right { strip, codes: strip, step: codes.block_bytes() },
                Codes::Int4 => {
                    widened.resize(x.blocks * block / QUAD * CODES, 0);
                    // SAFETY: this table has the instructions.
                    unsafe { widen(strip, widened) };
                    Right { strip, codes: widened, step: block / QUAD * CODES }
                }
            };
            for token in (0..tokens).step_by(GROUP) {
                let out = start.wrapping_add(token * stride + first);
                let here = Here { token, tokens: GROUP.min(tokens - token), rows: STRIP.min(rows - first) };
                // SAFETY: strip and tokens have their blocks, the output these elements; this table has the
                // instructions, and the shapes are set.
                unsafe { group(codes, x, right, here, (out, stride)) };
            }
        }
    });
}

/// Codes of a strip, a byte each, `step` bytes from block to block; its scales stand in `strip`.
#[derive(Clone, Copy)]
struct Right<'a> {
    strip: &'a [u8],
    codes: &'a [u8],
    step: usize,
}

/// Which tokens, and how many rows of the strip.
#[derive(Clone, Copy)]
struct Here {
    token: usize,
    tokens: usize,
    rows: usize,
}

/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn widen(strip: &[u8], out: &mut [u8]) {
    let low = _mm512_set1_epi8(15);
    let block = Codes::Int4.block_bytes();
    for (block, out) in
        strip.chunks_exact(block).zip(out.chunks_exact_mut(Codes::Int4.block() / QUAD * CODES))
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

/// The products of up to 32 tokens and a strip.
///
/// # Safety
/// Tokens and strip must have their blocks, `out` `[tokens, rows]`; shapes for `codes` must be set.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn group(codes: Codes, x: Quantised<'_>, right: Right<'_>, here: Here, out: (*mut f32, usize)) {
    let Here { token, tokens, rows } = here;
    let (blocks, width) = (x.blocks, x.blocks * codes.block());
    let mut whole = [0i32; GROUP * STRIP]; // [tokens, rows]
    let mut sums = [0f32; GROUP * STRIP];
    let left = x.codes[token * width..].as_ptr();
    for block in 0..blocks {
        let of_strip = &right.strip[(block + 1) * codes.block_bytes() - 2 * STRIP..][..2 * STRIP];
        let b = right.codes[block * right.step..].as_ptr();
        // SAFETY: both factors have this block: 16 or 32 tokens, padded, and the strip's rows.
        unsafe {
            match tokens <= SIDE {
                true => one(left.add(block * codes.block()), width, b, &mut whole),
                false => two(left.add(block * codes.block()), width, b, &mut whole),
            }
            let scales: [_; 2] = std::array::from_fn(|v| {
                let half = _mm256_loadu_si256(of_strip.as_ptr().add(32 * v).cast());
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
            });
            for t in 0..tokens {
                let at = (token + t) * blocks + block;
                let scale = _mm512_set1_ps(*x.scales.get_unchecked(at));
                let offset = _mm512_set1_epi32(*x.offsets.get_unchecked(at));
                for (v, &of_rows) in scales.iter().enumerate() {
                    let at = t * STRIP + v * SIDE;
                    let block = _mm512_loadu_si512(whole.as_ptr().add(at).cast());
                    let block = _mm512_cvtepi32_ps(_mm512_add_epi32(block, offset));
                    let sum = _mm512_loadu_ps(sums.as_ptr().add(at));
                    let sum = _mm512_fmadd_ps(_mm512_mul_ps(of_rows, scale), block, sum);
                    _mm512_storeu_ps(sums.as_mut_ptr().add(at), sum);
                }
            }
        }
    }
    for (t, sums) in sums.chunks_exact(STRIP).enumerate().take(tokens) {
        // SAFETY: the caller's promise.
        unsafe { out.0.add(t * out.1).copy_from_nonoverlapping(sums.as_ptr(), rows) };
    }
}

/// 16 tokens by 32 rows at one block, into `[tokens, rows]`.
///
/// # Safety
/// `left` must have 16 tokens, `stride` bytes apart, and `right` the strip's block; the shapes must be set.
#[inline(always)]
unsafe fn one(left: *const i8, stride: usize, right: *const u8, sums: &mut [i32; GROUP * STRIP]) {
    // SAFETY: the caller's promise; tiles are used by this file's assembly alone, and hold nothing when it ends.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tileloadd tmm4, [{a} + {sa}*1]",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {line}*1 + 64]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tilestored [{out} + {line}*1], tmm0",
            "tilestored [{out} + {line}*1 + 64], tmm1",
            a = in(reg) left,
            sa = in(reg) stride,
            b = in(reg) right,
            line = in(reg) CODES,
            out = in(reg) sums.as_mut_ptr(),
            options(nostack),
        );
    }
}

/// As [`one`], for 32 tokens.
///
/// # Safety
/// As [`one`].
#[inline(always)]
unsafe fn two(left: *const i8, stride: usize, right: *const u8, sums: &mut [i32; GROUP * STRIP]) {
    // SAFETY: as in `one`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "tileloadd tmm4, [{a} + {sa}*1]",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b} + {line}*1 + 64]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {sa}*1]",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "tilestored [{out} + {line}*1], tmm0",
            "tilestored [{out} + {line}*1 + 64], tmm1",
            "tilestored [{out} + {line}*1 + 2048], tmm2",
            "tilestored [{out} + {line}*1 + 2112], tmm3",
            a = in(reg) left,
            a1 = in(reg) left.wrapping_add(SIDE * stride),
            sa = in(reg) stride,
            b = in(reg) right,
            line = in(reg) CODES,
            out = in(reg) sums.as_mut_ptr(),
            options(nostack),
        );
    }
}
