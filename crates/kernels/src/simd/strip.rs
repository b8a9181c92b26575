//! Products of strips of 8-bit and 4-bit codes.
//!
//! A block is summed exactly, in whole numbers; the sums of blocks are scaled and added in increasing k.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(clippy::needless_range_loop, reason = "counts of registers, fixed for the compiler")]

use super::vector::{Dot, FEW_REGISTERS, FOUR_BIT_STEPS};
use crate::columns::ColumnsMut;
use crate::factors::StripFactors;
use crate::strips::block_quantized::BlockQuantized;
use crate::strips::layout::{QUAD, SCALES, STRIP, StripFormat};

/// Bytes of a strip's rows at four k.
const CODES: usize = STRIP * QUAD;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes by which codes are prefetched ahead.
const AHEAD: usize = 2 << 10;

/// See [`Table::product_strips`](crate::Table::product_strips). `VECTORS` are those of a strip's rows.
///
/// # Safety
/// The processor must have the instructions of `S`, as [`Dot`] says.
#[inline(always)]
pub(crate) unsafe fn product<S: Dot, const VECTORS: usize>(
    factors: StripFactors<'_>,
    mut out: ColumnsMut<'_>,
) {
    const { assert!(VECTORS * S::LANES == STRIP) };
    let (tokens, rows) = (out.rows(), out.columns());
    let bytes = factors.check(tokens, rows);
    let StripFactors { format, x, weight } = factors;
    let tiles = tokens.div_ceil(S::STRIP_TOKENS);
    for (first, strip) in (0..rows).step_by(STRIP).zip(weight.chunks_exact(bytes)) {
        for tile in 0..tiles {
            // Tiles of similar sizes: 8 tokens are 4 and 4.
            let [token, end] = [tile, tile + 1].map(|t| tokens * t / tiles);
            let out = StripOut::new(&mut out, token, first);
            let tokens = TileTokens { x, first: token, count: end - token };
            // SAFETY: `check` says that tokens and strip have their blocks; the output has these elements.
            unsafe {
                match format {
                    StripFormat::Int8 => with_tokens::<S, Bytes<false>, VECTORS>(tokens, strip, out),
                    StripFormat::Int4 => with_tokens::<S, Nibbles<false>, VECTORS>(tokens, strip, out),
                    StripFormat::Q8_0 => with_tokens::<S, Bytes<true>, VECTORS>(tokens, strip, out),
                    StripFormat::Q4_0 => with_tokens::<S, Nibbles<true>, VECTORS>(tokens, strip, out),
                }
            }
        }
    }
}

/// Some tokens of a product.
#[derive(Clone, Copy)]
struct TileTokens<'a> {
    x: BlockQuantized<'a>,
    first: usize,
    count: usize,
}

/// Where the sums of some tokens with one strip go.
#[derive(Clone, Copy)]
pub(super) struct StripOut {
    start: *mut f32, // of the first token and row
    stride: usize,
    rows: usize,
}

impl StripOut {
    /// From a token and a row on.
    #[inline(always)]
    pub(super) fn new(out: &mut ColumnsMut<'_>, token: usize, row: usize) -> Self {
        let stride = out.stride();
        let start = out.as_mut_ptr().wrapping_add(token * stride + row);
        Self { start, stride, rows: STRIP.min(out.columns() - row) }
    }

    /// Writes the sums of one token.
    ///
    /// # Safety
    /// The output must have this token; the processor must have the instructions of `S`.
    #[inline(always)]
    pub(super) unsafe fn put<S: Dot, const VECTORS: usize>(self, token: usize, sums: [S::F32; VECTORS]) {
        let to = self.start.wrapping_add(token * self.stride);
        // SAFETY: the output has so many rows of this strip, and the array has all of them.
        unsafe {
            if self.rows == STRIP {
                for v in 0..VECTORS {
                    S::store(to.add(v * S::LANES), sums[v]);
                }
                return;
            }
            let mut all = [0f32; STRIP];
            for v in 0..VECTORS {
                S::store(all.as_mut_ptr().add(v * S::LANES), sums[v]);
            }
            to.copy_from_nonoverlapping(all.as_ptr(), self.rows);
        }
    }
}

/// How the codes of a format are multiplied and added up.
///
/// # Safety
/// Of all functions: the processor must have the instructions of `S`.
trait StripArithmetic<S: Dot> {
    const CODES: StripFormat;
    /// Quads of k in a stored vector.
    const QUADS: usize;
    /// One quad's codes, ready for all tokens.
    type Ready: Copy;
    type Sum: Copy;
    unsafe fn ready(stored: S::Stored, quad: usize) -> Self::Ready;
    unsafe fn start(offset: i32) -> Self::Sum;
    unsafe fn dot(sum: Self::Sum, codes: Self::Ready, token: S::Token) -> Self::Sum;
    unsafe fn finish(sum: Self::Sum, offset: i32) -> S::I32;
}

/// A byte each; with scales in `bf16`, or IEEE halves.
struct Bytes<const HALVES: bool>;
/// Two in a byte.
struct Nibbles<const HALVES: bool>;

impl<S: Dot, const HALVES: bool> StripArithmetic<S> for Bytes<HALVES> {
    const CODES: StripFormat = if HALVES { StripFormat::Q8_0 } else { StripFormat::Int8 };
    const QUADS: usize = 1;
    type Ready = S::Bytes;
    type Sum = S::I32;

    #[inline(always)]
    unsafe fn ready(stored: S::Stored, _: usize) -> S::Bytes {
        // SAFETY: the caller's promise.
        unsafe { S::bytes(stored) }
    }

    #[inline(always)]
    unsafe fn start(offset: i32) -> S::I32 {
        // SAFETY: the caller's promise.
        unsafe { S::start_bytes(offset) }
    }

    #[inline(always)]
    unsafe fn dot(sum: S::I32, codes: S::Bytes, token: S::Token) -> S::I32 {
        // SAFETY: the caller's promise.
        unsafe { S::dot_bytes(sum, codes, token) }
    }

    #[inline(always)]
    unsafe fn finish(sum: S::I32, _: i32) -> S::I32 {
        sum
    }
}

// A block's quads are few enough for one sum of small codes.
const _: () = assert!(StripFormat::Int4.block() / QUAD <= FOUR_BIT_STEPS);
const _: () = assert!(StripFormat::Q4_0.block() / QUAD <= FOUR_BIT_STEPS);

impl<S: Dot, const HALVES: bool> StripArithmetic<S> for Nibbles<HALVES> {
    const CODES: StripFormat = if HALVES { StripFormat::Q4_0 } else { StripFormat::Int4 };
    const QUADS: usize = 2;
    type Ready = S::Stored;
    type Sum = S::Small;

    #[inline(always)]
    unsafe fn ready(stored: S::Stored, quad: usize) -> S::Stored {
        // SAFETY: the caller's promise.
        unsafe { S::bits(stored, 4 * quad, 15) }
    }

    #[inline(always)]
    unsafe fn start(offset: i32) -> S::Small {
        // SAFETY: the caller's promise.
        unsafe { S::open(S::splat_i32(offset)) }
    }

    #[inline(always)]
    unsafe fn dot(sum: S::Small, codes: S::Stored, token: S::Token) -> S::Small {
        // SAFETY: the caller's promise.
        unsafe { S::dot_small(sum, codes, token) }
    }

    #[inline(always)]
    unsafe fn finish(sum: S::Small, offset: i32) -> S::I32 {
        // SAFETY: the caller's promise.
        unsafe { S::close(S::splat_i32(offset), sum) }
    }
}

/// # Safety
/// Of this and what follows: the strip must have the blocks of the tokens, the output their elements; the
/// processor must have the instructions of `S`.
#[inline(always)]
unsafe fn with_tokens<S: Dot, F: StripArithmetic<S>, const VECTORS: usize>(
    tokens: TileTokens<'_>,
    strip: &[u8],
    out: StripOut,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match tokens.count {
            1 => multiply::<S, F, VECTORS, 1>(tokens, strip, out),
            2 => multiply::<S, F, VECTORS, 2>(tokens, strip, out),
            3 => multiply::<S, F, VECTORS, 3>(tokens, strip, out),
            4 => multiply::<S, F, VECTORS, 4>(tokens, strip, out),
            5 if S::STRIP_TOKENS > 4 => multiply::<S, F, VECTORS, 5>(tokens, strip, out),
            _ if S::STRIP_TOKENS > 4 => multiply::<S, F, VECTORS, 6>(tokens, strip, out),
            _ => unreachable!("a tile has at most four tokens"),
        }
    }
}

/// The products of `T` tokens.
///
/// # Safety
/// As [`with_tokens`].
#[inline(always)]
unsafe fn multiply<S: Dot, F: StripArithmetic<S>, const VECTORS: usize, const T: usize>(
    tokens: TileTokens<'_>,
    strip: &[u8],
    out: StripOut,
) {
    let x = tokens.x;
    let bytes = F::CODES.block_bytes();
    // Registers that a vector of rows takes for its sums and its codes. If the whole strip takes too many, a
    // block is read more than once, for some of the vectors each time.
    let registers = T + size_of::<F::Ready>() / size_of::<S::I32>();
    let at_once = if registers > FEW_REGISTERS { S::VECTORS_AT_ONCE } else { VECTORS };
    // SAFETY: the strip has so many blocks, and the tokens have their codes.
    unsafe {
        let mut sums = [[S::splat(0.0); VECTORS]; T];
        for b in 0..x.blocks {
            let block = Block {
                codes: x.codes(b, tokens.first).as_ptr(),
                offsets: &x.offsets(b, tokens.first)[..T],
                stored: strip.as_ptr().add(b * bytes),
            };
            let scales = &x.scales(b, tokens.first)[..T];
            let of_rows = block.stored.add(bytes - SCALES);
            for first in (0..VECTORS).step_by(at_once) {
                let whole = block.sums::<S, F, VECTORS, T>(first, at_once);
                for v in 0..at_once {
                    let of_row = scales_of::<S, F>(of_rows, first + v);
                    for t in 0..T {
                        let scale = S::mul(of_row, S::splat(scales[t]));
                        let total = S::to_f32(F::finish(whole[t][v], block.offsets[t]));
                        sums[t][first + v] = S::mul_add(scale, total, sums[t][first + v]);
                    }
                }
            }
        }
        for t in 0..T {
            out.put::<S, VECTORS>(t, sums[t]);
        }
    }
}

/// The scales of a vector of rows.
///
/// # Safety
/// There must be so many of them, two bytes each; the processor must have the instructions of `S`.
#[inline(always)]
unsafe fn scales_of<S: Dot, F: StripArithmetic<S>>(of_rows: *const u8, vector: usize) -> S::F32 {
    let from = of_rows.wrapping_add(2 * vector * S::LANES);
    // SAFETY: the caller's promise.
    unsafe { if F::CODES.has_halves() { S::load_halves(from.cast()) } else { S::load_widened(from.cast()) } }
}

/// A block of a strip, and of the tokens of a tile.
struct Block<'a> {
    codes: *const i8, // of the first token
    offsets: &'a [i32],
    stored: *const u8,
}

impl Block<'_> {
    /// The sums of `T` tokens and of `at_once` vectors of rows, from the vector `first` on.
    ///
    /// # Safety
    /// The block must have these vectors, and the codes and offsets of so many tokens; the processor must
    /// have the instructions of `S`.
    #[inline(always)]
    unsafe fn sums<S: Dot, F: StripArithmetic<S>, const VECTORS: usize, const T: usize>(
        &self,
        first: usize,
        at_once: usize,
    ) -> [[F::Sum; VECTORS]; T] {
        let block = F::CODES.block();
        // SAFETY: the caller's promise; what is prefetched need not exist.
        unsafe {
            let mut whole = [[F::start(0); VECTORS]; T];
            for t in 0..T {
                whole[t] = [F::start(self.offsets[t]); VECTORS];
            }
            for step in 0..block / QUAD / F::QUADS {
                let here = self.stored.add(step * CODES);
                if first == 0 {
                    for line in (0..CODES).step_by(LINE) {
                        S::prefetch_l1(here.wrapping_add(AHEAD + line));
                    }
                }
                let here = here.add(first * 4 * S::LANES);
                for quad in 0..F::QUADS {
                    let mut ready = [F::ready(S::load_stored(here), quad); VECTORS];
                    for v in 1..at_once {
                        ready[v] = F::ready(S::load_stored(here.add(v * 4 * S::LANES)), quad);
                    }
                    for t in 0..T {
                        let at = t * block + (step * F::QUADS + quad) * QUAD;
                        let four = S::repeat(self.codes.add(at));
                        for v in 0..at_once {
                            whole[t][v] = F::dot(whole[t][v], ready[v], four);
                        }
                    }
                }
            }
            whole
        }
    }
}
