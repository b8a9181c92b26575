//! A product of row-major factors, cut into tiles that fit the registers.
//!
//! A tile is `R` rows by `T` tokens, one vector of sums for each element. Lane j of it adds up the terms k ≡ j
//! in increasing k, then the lanes are added in a fixed tree: every element is made alike in every tile,
//! which is the batch invariance of this crate's head.
//!
//! Everything here is inlined into a function of one instruction set, which gives it its instructions.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(clippy::needless_range_loop, reason = "counts of registers, fixed for the compiler")]

use crate::columns::ColumnsMut;
use crate::linear::Rows;
use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};

/// The vector operations of an instruction set.
pub(super) trait Vector: Copy {
    /// What a factor is made of.
    type Value: Copy;
    /// A vector of a factor.
    type Factor: Copy;
    /// Values of a factor's vector.
    const LANES: usize;
    /// Tokens of a tile: as many as the registers hold beside [`ROWS`] rows.
    const TOKENS: usize;

    /// # Safety
    /// Of all: the processor must have the instructions; of the loads: the values must be readable.
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const Self::Value) -> Self::Factor;
    /// The first `count` < `LANES` values; the other lanes are zero and not read.
    unsafe fn load_some(from: *const Self::Value, count: usize) -> Self::Factor;
    unsafe fn multiply_add(self, weight: Self::Factor, x: Self::Factor) -> Self;
    /// The sum of all lanes, in a fixed tree.
    unsafe fn total(self) -> f32;
    /// The sums of four rows; each as [`total`](Self::total) makes it.
    unsafe fn totals(four: [Self; ROWS]) -> [f32; ROWS];
}

/// Rows of a tile.
pub(super) const ROWS: usize = 4;
/// Up to so many tokens wait for memory; more are multiplied by rows that stay in the second-level cache.
const FEW_TOKENS: usize = 16;
/// Bytes of a row that are multiplied before the next rows have their turn, so that the tokens' share of them
/// stays in the first-level cache.
const STRETCH: usize = 3 << 10;
/// Groups of rows whose sums wait for the next stretch: with 2048 features of 4 bytes, 512 KiB of weights.
const GROUPS: usize = 16;
const LINE: usize = 64;
/// Bytes by which a lone token asks for its row before.
const NEAR: usize = 1 << 10;

/// Some rows and tokens of a product, at some k.
struct Part<V: Vector> {
    x: *const V::Value,
    weight: *const V::Value,
    stride: usize, // from row to row, of both
    len: usize,    // k
}

impl<V: Vector> Part<V> {
    #[inline(always)]
    fn at(&self, token: usize, row: usize, k: usize, len: usize) -> Self {
        let Self { x, weight, stride, .. } = *self;
        let (x, weight) = (x.wrapping_add(token * stride + k), weight.wrapping_add(row * stride + k));
        Self { x, weight, stride, len }
    }
}

/// Where the sums of some tokens and rows go.
#[derive(Clone, Copy)]
struct Out {
    start: *mut f32,
    stride: usize,
}

impl Out {
    #[inline(always)]
    fn at(self, token: usize, row: usize) -> Self {
        Self { start: self.start.wrapping_add(token * self.stride + row), ..self }
    }
}

/// See [`Table::product`](crate::Table::product).
///
/// # Safety
/// The processor must have the instructions of `V`.
#[inline(always)]
pub(super) unsafe fn product<V: Vector>(factors: Rows<'_, V::Value>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    factors.check(tokens, rows);
    let Rows { x, weight, in_features: k } = factors;
    let part = Part::<V> { x: x.as_ptr(), weight: weight.as_ptr(), stride: k, len: k };
    let out = Out { start: out.as_mut_ptr(), stride: out.stride() };
    // SAFETY: the shapes were checked; the caller promises the instructions.
    unsafe { if tokens <= FEW_TOKENS { few(part, out, tokens, rows) } else { many(part, out, tokens, rows) } }
}

/// Reads each row once, so that memory sees one stream: a lone token row by row, more of them four rows at a
/// time, while the next four are asked for one after the other. Vectors of half a line also take four rows for
/// a lone token: one sum alone would wait for itself longer than for memory.
///
/// # Safety
/// Of this and what follows: `part` must have the tokens and rows, `out` their elements.
#[inline(always)]
unsafe fn few<V: Vector>(part: Part<V>, out: Out, tokens: usize, rows: usize) {
    let (k, tiles) = (part.len, tokens.div_ceil(V::TOKENS));
    let row_by_row = tokens == 1 && size_of::<V>() == LINE;
    let whole = if row_by_row { 0 } else { rows - rows % ROWS };
    for row in (0..whole).step_by(ROWS).chain(whole..rows) {
        for tile in 0..tiles {
            // Tiles of like sizes: 8 tokens are 4 and 4.
            let [first, end] = [tile, tile + 1].map(|t| tokens * t / tiles);
            let (part, out) = (part.at(first, row, 0, k), out.at(first, row));
            // SAFETY: these tokens and rows exist.
            unsafe {
                match (row < whole, tile == 0) {
                    (true, true) => with_tokens::<V, ROWS, true>(&part, out, end - first),
                    (true, false) => with_tokens::<V, ROWS, false>(&part, out, end - first),
                    (false, true) => with_tokens::<V, 1, true>(&part, out, end - first),
                    (false, _) => with_tokens::<V, 1, false>(&part, out, end - first),
                }
            }
        }
    }
}

/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn with_tokens<V: Vector, const R: usize, const AHEAD: bool>(part: &Part<V>, out: Out, tokens: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match tokens {
            1 => tile::<V, R, 1, AHEAD>(part, out),
            2 => tile::<V, R, 2, AHEAD>(part, out),
            3 => tile::<V, R, 3, AHEAD>(part, out),
            4 => tile::<V, R, 4, AHEAD>(part, out),
            5 => tile::<V, R, 5, AHEAD>(part, out),
            _ => tile::<V, R, 6, AHEAD>(part, out),
        }
    }
}

/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn tile<V: Vector, const R: usize, const T: usize, const AHEAD: bool>(part: &Part<V>, out: Out) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::zero(); T]; R];
        multiply::<V, R, T, AHEAD>(part, &mut sums);
        finish(&sums, out);
    }
}

/// The rows after a block, of which each tile of tokens asks for a part, a few lines at a time.
struct Next {
    from: *const i8,
    lines: usize, // at a time
}

impl Next {
    /// The part of `tile` out of `tiles`, of as many rows from `row` on as a block has.
    #[inline(always)]
    fn part<V: Vector>(part: &Part<V>, row: usize, [tile, tiles]: [usize; 2]) -> Self {
        let bytes = ROWS * GROUPS * part.stride * size_of::<V::Value>();
        let times = GROUPS * (part.stride * size_of::<V::Value>()).div_ceil(STRETCH);
        let from = part.weight.wrapping_add(row * part.stride).cast::<i8>();
        Self { from: from.wrapping_add(bytes / tiles * tile), lines: bytes.div_ceil(tiles * times * LINE) }
    }

    #[inline(always)]
    fn ask(&mut self) {
        for _ in 0..self.lines {
            // SAFETY: what is asked for need not exist.
            unsafe { _mm_prefetch::<_MM_HINT_T1>(self.from) };
            self.from = self.from.wrapping_add(LINE);
        }
    }
}

/// Blocks of rows stay in the second-level cache while all tokens go by.
///
/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn many<V: Vector>(part: Part<V>, out: Out, tokens: usize, rows: usize) {
    let tiles = tokens.div_ceil(V::TOKENS);
    for row in (0..rows).step_by(ROWS * GROUPS) {
        let here = (rows - row).min(ROWS * GROUPS);
        for tile in 0..tiles {
            let [first, end] = [tile, tile + 1].map(|t| tokens * t / tiles);
            let next = Next::part(&part, row + here, [tile, tiles]);
            let (part, out) = (part.at(first, row, 0, part.len), out.at(first, row));
            // SAFETY: these tokens and rows exist.
            unsafe {
                match end - first {
                    1 => block::<V, 1>(&part, out, here, next),
                    2 => block::<V, 2>(&part, out, here, next),
                    3 => block::<V, 3>(&part, out, here, next),
                    4 => block::<V, 4>(&part, out, here, next),
                    5 => block::<V, 5>(&part, out, here, next),
                    _ => block::<V, 6>(&part, out, here, next),
                }
            }
        }
    }
}

/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn block<V: Vector, const T: usize>(part: &Part<V>, out: Out, rows: usize, mut next: Next) {
    let (k, groups) = (part.len, rows / ROWS);
    let stretch = STRETCH / size_of::<V::Value>() / V::LANES * V::LANES;
    // SAFETY: as below.
    let mut waiting = [[[unsafe { V::zero() }; T]; ROWS]; GROUPS];
    for first in (0..k).step_by(stretch) {
        let len = stretch.min(k - first);
        for (group, waiting) in waiting[..groups].iter_mut().enumerate() {
            let mut sums = *waiting;
            next.ask();
            // SAFETY: these rows exist.
            unsafe {
                multiply::<V, ROWS, T, false>(&part.at(0, group * ROWS, first, len), &mut sums);
                if first + len == k {
                    finish(&sums, out.at(0, group * ROWS));
                } else {
                    *waiting = sums;
                }
            }
        }
    }
    for row in groups * ROWS..rows {
        // SAFETY: this row exists.
        unsafe { tile::<V, 1, T, false>(&part.at(0, row, 0, k), out.at(0, row)) };
    }
}

/// Adds the products of `R` rows and `T` tokens to `sums`; `AHEAD` asks for what comes later.
///
/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn multiply<V: Vector, const R: usize, const T: usize, const AHEAD: bool>(
    part: &Part<V>,
    sums: &mut [[V; T]; R],
) {
    let Part { x, weight, stride, len } = *part;
    let whole = len - len % V::LANES;
    for i in (0..whole).step_by(V::LANES) {
        // SAFETY: `i + LANES ≤ len`, and each row and token has so many values; what is asked for need not
        // exist.
        unsafe {
            if AHEAD {
                let bytes = weight.wrapping_add(R * i).cast::<i8>();
                for line in (0..R * V::LANES * size_of::<V::Value>()).step_by(LINE) {
                    if R == 1 {
                        _mm_prefetch::<_MM_HINT_T0>(bytes.wrapping_add(NEAR + line));
                    } else {
                        let next = R * stride * size_of::<V::Value>();
                        _mm_prefetch::<_MM_HINT_T1>(bytes.wrapping_add(next + line));
                    }
                }
            }
            let mut xs = [V::load(x.add(i)); T];
            for t in 1..T {
                xs[t] = V::load(x.add(t * stride + i));
            }
            for r in 0..R {
                let weight = V::load(weight.add(r * stride + i));
                for t in 0..T {
                    sums[r][t] = sums[r][t].multiply_add(weight, xs[t]);
                }
            }
        }
    }
    if whole < len {
        // SAFETY: the last `len - whole` values of each row and token exist; no more are read.
        unsafe {
            let last = |from: *const V::Value| V::load_some(from.wrapping_add(whole), len - whole);
            for t in 0..T {
                let x = last(x.wrapping_add(t * stride));
                for r in 0..R {
                    sums[r][t] = sums[r][t].multiply_add(last(weight.wrapping_add(r * stride)), x);
                }
            }
        }
    }
}

/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn finish<V: Vector, const R: usize, const T: usize>(sums: &[[V; T]; R], out: Out) {
    for t in 0..T {
        let to = out.at(t, 0).start;
        // SAFETY: the caller's promise.
        unsafe {
            if R == ROWS {
                let four = V::totals([sums[0][t], sums[1][t], sums[2][t], sums[3][t]]);
                to.cast::<[f32; ROWS]>().write_unaligned(four);
            } else {
                for (r, sums) in sums.iter().enumerate() {
                    *to.add(r) = sums[t].total();
                }
            }
        }
    }
}
