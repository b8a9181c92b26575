//! Products of ternary strips in tiles, for many tokens; few are multiplied by VNNI.
//!
//! A strip is widened to a byte a code, which gives a right factor for each half of its rows: a row of the
//! tile is four k of 16 rows. Sums are exact whole numbers, so that they stay in tiles over all k.
#![allow(unsafe_code, reason = "tiles are reached through assembly, vectors through pointers")]

use super::tile::{LINE, SIDE, TileConfig, TileShape, TileSums};
use crate::aligned::Aligned;
use crate::columns::ColumnsMut;
use crate::factors::TernaryFactors;
use crate::ternary::layout::{self, BLOCK, QUAD, QUADS, STRIP};
use crate::ternary::row_quantized::RowQuantized;
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Bytes of a widened block: two tiles, one beside the other.
const WIDE: usize = BLOCK * STRIP;
/// Bytes of four k of a strip's rows, one byte each.
const CODES: usize = STRIP * QUAD;
/// Bytes of tokens that stay in the second-level cache while they are multiplied by one strip after the
/// other.
const CACHED: usize = 1 << 20;

thread_local! {
    /// A strip, a byte for each code.
    static WIDENED: RefCell<Aligned<u8>> = RefCell::default();
}

/// See [`Table::product_ternary`](crate::Table::product_ternary).
pub(super) fn product(factors: TernaryFactors<'_>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    if tokens <= SIDE {
        // A tile that is not full takes as long as a full one.
        return crate::x86::avx512::product_ternary(factors, out);
    }
    let bytes = factors.check(tokens, rows);
    let TernaryFactors { x, weight, step } = factors;
    assert!(x.group == SIDE, "whole tiles of tokens");
    let right = TileShape { rows: BLOCK / QUAD, bytes: LINE };
    // SAFETY: this table is handed out only where there are tiles.
    let _config = unsafe { TileConfig::set(TileShape::tall(LINE), TileShape::tall(BLOCK), right) };
    let (start, stride) = (out.as_mut_ptr(), out.stride());
    let some = tokens_at_once(x.blocks);
    WIDENED.with_borrow_mut(|widened| {
        let wide = widened.resize(x.blocks * WIDE);
        for of_tokens in (0..tokens).step_by(some) {
            for (first, strip) in (0..rows).step_by(STRIP).zip(weight.chunks_exact(bytes)) {
                // SAFETY: this table has the instructions.
                unsafe { widen(strip, wide) };
                for token in (of_tokens..tokens.min(of_tokens + some)).step_by(2 * SIDE) {
                    let out = start.wrapping_add(token * stride + first);
                    let tiles = TwoByTwo { token, tokens: tokens - token, rows: rows - first, out, stride };
                    // SAFETY: strip and tokens have their blocks, the output these elements; this table has
                    // the instructions, and the tiles are configured.
                    unsafe { multiply(x, wide, step, tiles) };
                }
            }
        }
    });
}

/// Tokens that are multiplied by a strip before the next strip is widened: whole pairs of tiles, one at the
/// least.
fn tokens_at_once(blocks: usize) -> usize {
    (CACHED / (blocks * BLOCK)).max(1).next_multiple_of(2 * SIDE)
}

/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn widen(strip: &[u8], wide: &mut [u8]) {
    let low = _mm512_set1_epi8(3);
    for (line, wide) in
        strip.as_chunks::<{ layout::LINE }>().0.iter().zip(wide.as_chunks_mut::<{ QUADS * CODES }>().0)
    {
        for v in 0..layout::LINE / LINE {
            // SAFETY: a line has two vectors, and `wide` four times as many.
            unsafe {
                let mut stored = _mm512_loadu_si512(line.as_ptr().add(v * LINE).cast());
                for quad in 0..QUADS {
                    let to = wide.as_mut_ptr().add(quad * CODES + v * LINE);
                    _mm512_storeu_si512(to.cast(), _mm512_and_si512(stored, low));
                    stored = _mm512_srli_epi16::<2>(stored);
                }
            }
        }
    }
}

/// Up to 32 tokens by the rows of a strip, and where their sums go.
#[derive(Clone, Copy)]
struct TwoByTwo {
    token: usize,
    tokens: usize,
    rows: usize,
    out: *mut f32,
    stride: usize,
}

/// Two tiles of tokens by two tiles of rows, over all k. If one tile of tokens is left, the second is not
/// written.
///
/// # Safety
/// Tokens and strip must have their blocks, the output its elements; the tiles must be configured.
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
unsafe fn multiply(x: RowQuantized<'_>, wide: &[u8], step: f32, tiles: TwoByTwo) {
    let mut sums = [const { TileSums([0; SIDE * SIDE]) }; 4]; // [tokens, rows] of each tile
    let groups = if tiles.tokens > SIDE { 2 } else { 1 };
    let left: [_; 2] = std::array::from_fn(|i| x.codes(0, tiles.token + i.min(groups - 1) * SIDE).as_ptr());
    // SAFETY: the caller's promise; the blocks of a group of tokens follow one another.
    unsafe { square_sums(left, wide.as_ptr(), x.blocks, &mut sums) };
    for (i, sums) in sums.iter().enumerate().take(2 * groups) {
        let (token, row) = (i / 2 * SIDE, i % 2 * SIDE);
        let rows = tiles.rows.saturating_sub(row).min(SIDE);
        let of_tokens = x.steps(tiles.token + token).iter().zip(x.offsets(tiles.token + token));
        for (t, (&of_token, &offset)) in of_tokens.enumerate().take(SIDE.min(tiles.tokens - token)) {
            let at = tiles.out.wrapping_add((token + t) * tiles.stride + row);
            // SAFETY: `sums` has 16 vectors; masked lanes are not written, and the others lie within the
            // output.
            unsafe {
                let whole = _mm512_load_si512(sums.0.as_ptr().add(t * SIDE).cast());
                let whole = _mm512_cvtepi32_ps(_mm512_add_epi32(whole, _mm512_set1_epi32(offset)));
                let sum = _mm512_mul_ps(whole, _mm512_set1_ps(of_token * step));
                _mm512_mask_storeu_ps(at, ((1u32 << rows) - 1) as u16, sum);
            }
        }
    }
}

/// 32 tokens by 32 rows.
///
/// # Safety
/// Each of `left` must have `blocks` tiles of 16 tokens, and `right` as many pairs of tiles of 16 rows; the
/// tiles must be configured.
#[inline(always)]
unsafe fn square_sums(left: [*const i8; 2], right: *const u8, blocks: usize, sums: &mut [TileSums; 4]) {
    // SAFETY: the caller's promise; tiles are used by this file's assembly alone, and hold nothing after it.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{first} + {line}*1]",
            "tileloadd tmm6, [{right} + {codes}*1]",
            "tdpbsud tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right} + {codes}*1 + 64]",
            "tdpbsud tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{second} + {line}*1]",
            "tdpbsud tmm2, tmm5, tmm6",
            "tdpbsud tmm3, tmm5, tmm7",
            "add {first}, {tile}",
            "add {second}, {tile}",
            "add {right}, {wide}",
            "dec {blocks}",
            "jnz 2b",
            "tilestored [{sums} + {line}*1], tmm0",
            "tilestored [{sums} + {line}*1 + 1024], tmm1",
            "tilestored [{sums} + {line}*1 + 2048], tmm2",
            "tilestored [{sums} + {line}*1 + 3072], tmm3",
            first = inout(reg) left[0] => _,
            second = inout(reg) left[1] => _,
            right = inout(reg) right => _,
            blocks = inout(reg) blocks => _,
            sums = in(reg) sums.as_mut_ptr(),
            line = in(reg) LINE,
            codes = in(reg) CODES,
            tile = const SIDE * BLOCK,
            wide = const WIDE,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs no tiles: only the cut of a product is tested.
    #[test]
    fn rows_of_any_width_take_whole_pairs_of_tiles() {
        for in_features in [1, BLOCK, 2048, CACHED / 64, CACHED - 1, CACHED, CACHED + 1, layout::MAX_FEATURES]
        {
            let tokens = tokens_at_once(layout::blocks(in_features));
            assert!(tokens > 0 && tokens.is_multiple_of(2 * SIDE), "{tokens} tokens of {in_features}");
            let bytes = tokens * in_features;
            assert!(tokens == 2 * SIDE || bytes <= 2 * CACHED, "{bytes} bytes of {in_features} wide tokens");
        }
        assert_eq!(tokens_at_once(layout::blocks(2048)), CACHED / 2048, "what fits is taken");
    }
}
