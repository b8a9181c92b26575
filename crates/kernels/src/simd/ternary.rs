//! Products of ternary strips: an element is one exact whole number, scaled once.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(clippy::needless_range_loop, reason = "counts of registers, fixed for the compiler")]

use super::strip::StripOut;
use super::vector::{Dot, FEW_REGISTERS, TWO_BIT_STEPS};
use crate::columns::ColumnsMut;
use crate::factors::TernaryFactors;
use crate::ternary::layout::{BLOCK, BLOCK_BYTES, LINE, QUAD, QUADS, STEP, STRIP};
use crate::ternary::row_quantized::RowQuantized;

/// Bytes of a cache line.
const CACHE_LINE: usize = 64;

// A block's quads are few enough for one sum of small codes.
const _: () = assert!(BLOCK / QUAD <= TWO_BIT_STEPS);

/// See [`Table::product_ternary`](crate::Table::product_ternary). `VECTORS` are those of a strip's rows.
///
/// # Safety
/// The processor must have the instructions of `S`, as [`Dot`] says.
#[inline(always)]
pub(crate) unsafe fn product<S: Dot, const VECTORS: usize>(
    factors: TernaryFactors<'_>,
    mut out: ColumnsMut<'_>,
) {
    const { assert!(VECTORS * S::LANES == STRIP) };
    let (tokens, rows) = (out.rows(), out.columns());
    let bytes = factors.check(tokens, rows);
    let TernaryFactors { x, weight, step } = factors;
    for (first, strip) in (0..rows).step_by(STRIP).zip(weight.chunks_exact(bytes)) {
        for token in (0..tokens).step_by(S::TERNARY_TOKENS) {
            let tile = TernaryTile { x, token, step, out: StripOut::new(&mut out, token, first) };
            // SAFETY: `check` says that tokens and strip have their blocks; the output has these elements.
            // Groups of more than 8 tokens are whole multiples of a tile, and smaller ones begin at 0 and end
            // where the tokens do, so that a tile lies within one.
            unsafe {
                match tokens - token {
                    1 => multiply::<S, VECTORS, 1>(tile, strip),
                    2 => multiply::<S, VECTORS, 2>(tile, strip),
                    3 => multiply::<S, VECTORS, 3>(tile, strip),
                    _ if S::TERNARY_TOKENS == 4 => multiply::<S, VECTORS, 4>(tile, strip),
                    4 => multiply::<S, VECTORS, 4>(tile, strip),
                    5 => multiply::<S, VECTORS, 5>(tile, strip),
                    6 => multiply::<S, VECTORS, 6>(tile, strip),
                    7 => multiply::<S, VECTORS, 7>(tile, strip),
                    _ => multiply::<S, VECTORS, 8>(tile, strip),
                }
            }
        }
    }
}

/// Some tokens of a product, and where their sums with one strip go.
#[derive(Clone, Copy)]
struct TernaryTile<'a> {
    x: RowQuantized<'a>,
    token: usize,
    step: f32,
    out: StripOut,
}

/// Independent sums of each element. With one sum, each addition would wait for the one before it.
const fn chains<S: Dot>(tokens: usize) -> usize {
    match tokens {
        _ if !S::SMALL_IS_WIDE => 1,
        1 | 2 => QUADS,
        3 | 4 => 2,
        _ => 1,
    }
}

/// The products of `T` tokens.
///
/// # Safety
/// The strip must have the tokens' blocks, the tokens stand in one group, the output have its elements.
#[inline(always)]
unsafe fn multiply<S: Dot, const VECTORS: usize, const T: usize>(tile: TernaryTile<'_>, strip: &[u8]) {
    let TernaryTile { x, token, .. } = tile;
    let chains = chains::<S>(T);
    // As in `strip`: the sums and the codes of a vector of rows.
    let at_once = if T + 1 > FEW_REGISTERS { S::VECTORS_AT_ONCE } else { VECTORS };
    // SAFETY: the strip has so many blocks, and each token `BLOCK` codes of each.
    unsafe {
        let mut sums = [[[S::splat_i32(0); VECTORS]; QUADS]; T]; // the first `chains` of each token
        for block in 0..x.blocks {
            let (codes, lines) = (x.codes(block, token).as_ptr(), strip.as_ptr().add(block * BLOCK_BYTES));
            for first in (0..VECTORS).step_by(at_once) {
                let mut small = [[[S::open(S::splat_i32(0)); VECTORS]; QUADS]; T];
                for t in 0..T {
                    for chain in 0..chains {
                        (0..at_once).for_each(|v| small[t][chain][v] = S::open(sums[t][chain][first + v]));
                    }
                }
                for step in 0..BLOCK / STEP {
                    let here = lines.add(step * LINE);
                    if first == 0 {
                        for line in (0..LINE).step_by(CACHE_LINE) {
                            S::prefetch_l1(here.wrapping_add(S::TERNARY_AHEAD + line));
                        }
                    }
                    let here = here.add(first * 4 * S::LANES);
                    add_line::<S, VECTORS, T>(here, codes.add(step * STEP), at_once, &mut small);
                }
                for t in 0..T {
                    for (sums, small) in sums[t].iter_mut().zip(&small[t]).take(chains) {
                        (0..at_once).for_each(|v| sums[first + v] = S::close(sums[first + v], small[v]));
                    }
                }
            }
        }
        for t in 0..T {
            let (offset, scale) = (S::splat_i32(x.offsets(token)[t]), x.steps(token)[t] * tile.step);
            let mut scaled = [S::splat(0.0); VECTORS];
            for v in 0..VECTORS {
                let whole = (0..chains).fold(offset, |whole, chain| S::add_i32(whole, sums[t][chain][v]));
                scaled[v] = S::mul(S::to_f32(whole), S::splat(scale));
            }
            tile.out.put::<S, VECTORS>(t, scaled);
        }
    }
}

/// Sums under way: of each token, in chains, and of each vector of rows.
type SmallSums<S, const VECTORS: usize, const T: usize> = [[[<S as Dot>::Small; VECTORS]; QUADS]; T];

/// Adds the products of one line: `codes` are those of the first token, `line` begins at the first vector of
/// rows.
///
/// # Safety
/// The line must have `at_once` vectors, each token its codes; the processor must have the instructions of
/// `S`.
#[inline(always)]
unsafe fn add_line<S: Dot, const VECTORS: usize, const T: usize>(
    line: *const u8,
    codes: *const i8,
    at_once: usize,
    sums: &mut SmallSums<S, VECTORS, T>,
) {
    for quad in 0..QUADS {
        // SAFETY: the caller's promise.
        unsafe {
            let mut ready = [S::bits(S::load_stored(line), 2 * quad, 3); VECTORS];
            for v in 1..at_once {
                ready[v] = S::bits(S::load_stored(line.add(v * 4 * S::LANES)), 2 * quad, 3);
            }
            for t in 0..T {
                let four = S::repeat(codes.add(t * BLOCK + quad * QUAD));
                for v in 0..at_once {
                    let sum = &mut sums[t][quad % chains::<S>(T)][v];
                    *sum = S::dot_small(*sum, ready[v], four);
                }
            }
        }
    }
}
