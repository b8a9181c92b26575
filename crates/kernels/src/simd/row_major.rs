//! A product of row-major factors, cut into tiles that fit the registers.
//!
//! A tile is `R` rows by `T` tokens, with one vector of sums for each element. Lane j adds up the terms k ≡ j
//! in increasing k, then the lanes are added in a fixed tree. Every element is summed alike in every tile,
//! which is the batch invariance of this crate's head.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(clippy::needless_range_loop, reason = "counts of registers, fixed for the compiler")]

use super::row_format::RowFormat;
use super::vector::{ROWS, Simd};
use crate::columns::ColumnsMut;
use crate::factors::RowFactors;

/// Up to so many tokens, memory is the limit. More are multiplied by rows that stay in the second-level
/// cache.
const FEW_TOKENS: usize = 16;
/// Bytes of a row that are multiplied before the next rows, so that the same stretch of the tokens stays in
/// the first-level cache.
const STRETCH: usize = 3 << 10;
/// Groups of rows whose sums wait for the next stretch: with 2048 features of 4 bytes, 512 KiB of weights.
const GROUPS: usize = 16;
const LINE: usize = 64;
/// Bytes by which a row is prefetched ahead for one token.
const NEAR: usize = 1 << 10;

/// The factors of a tile: from one row, one token and one k on.
struct TileFactors<V> {
    x: *const V,
    weight: *const V,
    stride: usize, // from row to row, of both
    len: usize,    // k
}

impl<V> TileFactors<V> {
    #[inline(always)]
    fn at(&self, token: usize, row: usize, k: usize, len: usize) -> Self {
        let Self { x, weight, stride, .. } = *self;
        let (x, weight) = (x.wrapping_add(token * stride + k), weight.wrapping_add(row * stride + k));
        Self { x, weight, stride, len }
    }
}

/// Where the sums of some tokens and rows go.
#[derive(Clone, Copy)]
struct RowOut {
    start: *mut f32,
    stride: usize,
}

impl RowOut {
    #[inline(always)]
    fn at(self, token: usize, row: usize) -> Self {
        Self { start: self.start.wrapping_add(token * self.stride + row), ..self }
    }
}

/// See [`Table::product`](crate::Table::product).
///
/// # Safety
/// The processor must have the instructions of `S`.
#[inline(always)]
pub(crate) unsafe fn product<S: Simd, F: RowFormat<S>>(
    factors: RowFactors<'_, F::Value>,
    mut out: ColumnsMut<'_>,
) {
    let (tokens, rows) = (out.rows(), out.columns());
    factors.check(tokens, rows);
    let RowFactors { x, weight, in_features: k } = factors;
    let part = TileFactors { x: x.as_ptr(), weight: weight.as_ptr(), stride: k, len: k };
    let out = RowOut { start: out.as_mut_ptr(), stride: out.stride() };
    // SAFETY: the shapes were checked; the caller promises the instructions.
    unsafe {
        if tokens <= FEW_TOKENS {
            few::<S, F>(part, out, tokens, rows)
        } else {
            many::<S, F>(part, out, tokens, rows)
        }
    }
}

/// Lines that a tile prefetches in each step of k, out of `all` that its rows take in memory in a step; and
/// those that the tiles of tokens before it do. Tiles share them evenly, so that memory is read all the time.
const fn lines_ahead(tile: usize, tiles: usize, all: usize) -> [usize; 2] {
    let (mut before, mut index) = (0, 0);
    loop {
        let left = (all - before).div_ceil(if tiles > index { tiles - index } else { 1 });
        if index == tile {
            return [before, left];
        }
        before += left;
        index += 1;
    }
}

/// Reads each row once, so that memory is read as one stream. One token is multiplied row by row. Several
/// tokens are multiplied by four rows at a time, while the next four rows are prefetched one after the other.
/// If a vector is shorter than a cache line, one token takes four rows at a time too: with one sum, each
/// addition would wait for the one before it, which takes longer than memory.
///
/// # Safety
/// Of this and what follows: `part` must have the tokens and rows, `out` their elements.
#[inline(always)]
unsafe fn few<S: Simd, F: RowFormat<S>>(
    part: TileFactors<F::Value>,
    out: RowOut,
    tokens: usize,
    rows: usize,
) {
    let (k, tiles) = (part.len, tokens.div_ceil(F::TOKENS));
    let row_by_row = tokens == 1 && size_of::<S::F32>() == LINE;
    let whole = if row_by_row { 0 } else { rows - rows % ROWS };
    let steps = k / F::LANES;
    for row in (0..whole).step_by(ROWS).chain(whole..rows) {
        let height = if row < whole { ROWS } else { 1 };
        for tile in 0..tiles {
            // Tiles of similar sizes: 8 tokens are 4 and 4.
            let [first, end] = [tile, tile + 1].map(|t| tokens * t / tiles);
            let (part, out) = (part.at(first, row, 0, k), out.at(first, row));
            let all = (height * F::LANES * size_of::<F::Value>()).div_ceil(LINE);
            let [before, lines] = lines_ahead(tile, tiles, all);
            let ahead = before * steps * LINE;
            // SAFETY: these tokens and rows exist.
            unsafe {
                match (row < whole, lines) {
                    (true, 0) => with_tokens::<S, F, ROWS, 0>(&part, out, ahead, end - first),
                    (true, 1) => with_tokens::<S, F, ROWS, 1>(&part, out, ahead, end - first),
                    (true, 2) => with_tokens::<S, F, ROWS, 2>(&part, out, ahead, end - first),
                    (true, _) => with_tokens::<S, F, ROWS, 4>(&part, out, ahead, end - first),
                    (false, 0) => with_tokens::<S, F, 1, 0>(&part, out, ahead, end - first),
                    (false, _) => with_tokens::<S, F, 1, 1>(&part, out, ahead, end - first),
                }
            }
        }
    }
}

/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn with_tokens<S: Simd, F: RowFormat<S>, const R: usize, const AHEAD: usize>(
    part: &TileFactors<F::Value>,
    out: RowOut,
    ahead: usize,
    tokens: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        match tokens {
            1 => tile::<S, F, R, 1, AHEAD>(part, out, ahead),
            2 => tile::<S, F, R, 2, AHEAD>(part, out, ahead),
            3 => tile::<S, F, R, 3, AHEAD>(part, out, ahead),
            4 => tile::<S, F, R, 4, AHEAD>(part, out, ahead),
            5 => tile::<S, F, R, 5, AHEAD>(part, out, ahead),
            _ => tile::<S, F, R, 6, AHEAD>(part, out, ahead),
        }
    }
}

/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn tile<S: Simd, F: RowFormat<S>, const R: usize, const T: usize, const AHEAD: usize>(
    part: &TileFactors<F::Value>,
    out: RowOut,
    ahead: usize,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[S::splat(0.0); T]; R];
        multiply::<S, F, R, T, AHEAD>(part, &mut sums, ahead);
        finish::<S, R, T>(&sums, out);
    }
}

/// The rows after a block. Each tile of tokens prefetches a part of them, a few lines at a time.
struct NextRows {
    from: *const u8,
    lines: usize, // at a time
}

impl NextRows {
    /// The part of `tile` out of `tiles`, of as many rows from `row` on as a block has.
    #[inline(always)]
    fn part<V>(part: &TileFactors<V>, row: usize, [tile, tiles]: [usize; 2]) -> Self {
        let bytes = ROWS * GROUPS * part.stride * size_of::<V>();
        let times = GROUPS * (part.stride * size_of::<V>()).div_ceil(STRETCH);
        let from = part.weight.wrapping_add(row * part.stride).cast::<u8>();
        Self { from: from.wrapping_add(bytes / tiles * tile), lines: bytes.div_ceil(tiles * times * LINE) }
    }

    #[inline(always)]
    fn ask<S: Simd>(&mut self) {
        for _ in 0..self.lines {
            // SAFETY: what is prefetched need not exist.
            unsafe { S::prefetch_l2(self.from) };
            self.from = self.from.wrapping_add(LINE);
        }
    }
}

/// A block of rows stays in the second-level cache while all tokens are multiplied by it.
///
/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn many<S: Simd, F: RowFormat<S>>(
    part: TileFactors<F::Value>,
    out: RowOut,
    tokens: usize,
    rows: usize,
) {
    let tiles = tokens.div_ceil(F::TOKENS);
    for row in (0..rows).step_by(ROWS * GROUPS) {
        let here = (rows - row).min(ROWS * GROUPS);
        for tile in 0..tiles {
            let [first, end] = [tile, tile + 1].map(|t| tokens * t / tiles);
            let next = NextRows::part(&part, row + here, [tile, tiles]);
            let (part, out) = (part.at(first, row, 0, part.len), out.at(first, row));
            // SAFETY: these tokens and rows exist.
            unsafe {
                match end - first {
                    1 => block::<S, F, 1>(&part, out, here, next),
                    2 => block::<S, F, 2>(&part, out, here, next),
                    3 => block::<S, F, 3>(&part, out, here, next),
                    4 => block::<S, F, 4>(&part, out, here, next),
                    5 => block::<S, F, 5>(&part, out, here, next),
                    _ => block::<S, F, 6>(&part, out, here, next),
                }
            }
        }
    }
}

/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn block<S: Simd, F: RowFormat<S>, const T: usize>(
    part: &TileFactors<F::Value>,
    out: RowOut,
    rows: usize,
    mut next: NextRows,
) {
    let (k, groups) = (part.len, rows / ROWS);
    let stretch = STRETCH / size_of::<F::Value>() / F::LANES * F::LANES;
    // SAFETY: as below.
    let mut waiting = [[[unsafe { S::splat(0.0) }; T]; ROWS]; GROUPS];
    for first in (0..k).step_by(stretch) {
        let len = stretch.min(k - first);
        for (group, waiting) in waiting[..groups].iter_mut().enumerate() {
            let mut sums = *waiting;
            next.ask::<S>();
            // SAFETY: these rows exist.
            unsafe {
                multiply::<S, F, ROWS, T, 0>(&part.at(0, group * ROWS, first, len), &mut sums, 0);
                if first + len == k {
                    finish::<S, ROWS, T>(&sums, out.at(0, group * ROWS));
                } else {
                    *waiting = sums;
                }
            }
        }
    }
    for row in groups * ROWS..rows {
        // SAFETY: this row exists.
        unsafe { tile::<S, F, 1, T, 0>(&part.at(0, row, 0, k), out.at(0, row), 0) };
    }
}

/// Adds the products of `R` rows and `T` tokens to `sums`, and prefetches `AHEAD` lines in each step: of the
/// next rows from byte `ahead` on, or, for one row, of what is near.
///
/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn multiply<S: Simd, F: RowFormat<S>, const R: usize, const T: usize, const AHEAD: usize>(
    part: &TileFactors<F::Value>,
    sums: &mut [[S::F32; T]; R],
    ahead: usize,
) {
    let TileFactors { x, weight, stride, len } = *part;
    let whole = len - len % F::LANES;
    for i in (0..whole).step_by(F::LANES) {
        // SAFETY: `i + LANES ≤ len`, and each row and token has so many values; what is prefetched need not
        // exist.
        unsafe {
            if AHEAD > 0 {
                let next = match R {
                    1 => weight.wrapping_add(i).cast::<u8>().wrapping_add(NEAR),
                    _ => weight.wrapping_add(R * stride).cast::<u8>().wrapping_add(ahead),
                };
                for line in 0..AHEAD {
                    match R {
                        1 => S::prefetch_l1(next.wrapping_add(line * LINE)),
                        _ => S::prefetch_l2(next.wrapping_add((i / F::LANES * AHEAD + line) * LINE)),
                    }
                }
            }
            let mut xs = [F::load(x.add(i)); T];
            for t in 1..T {
                xs[t] = F::load(x.add(t * stride + i));
            }
            for r in 0..R {
                let weight = F::load(weight.add(r * stride + i));
                for t in 0..T {
                    sums[r][t] = F::mul_add(weight, xs[t], sums[r][t]);
                }
            }
        }
    }
    if whole < len {
        // SAFETY: the last `len - whole` values of each row and token exist; no more are read.
        unsafe {
            let last = |from: *const F::Value| F::load_some(from.wrapping_add(whole), len - whole);
            for t in 0..T {
                let x = last(x.wrapping_add(t * stride));
                for r in 0..R {
                    sums[r][t] = F::mul_add(last(weight.wrapping_add(r * stride)), x, sums[r][t]);
                }
            }
        }
    }
}

/// # Safety
/// As [`few`].
#[inline(always)]
unsafe fn finish<S: Simd, const R: usize, const T: usize>(sums: &[[S::F32; T]; R], out: RowOut) {
    for t in 0..T {
        let to = out.at(t, 0).start;
        // SAFETY: the caller's promise.
        unsafe {
            if R == ROWS {
                let four = S::totals([sums[0][t], sums[1][t], sums[2][t], sums[3][t]]);
                to.cast::<[f32; ROWS]>().write_unaligned(four);
            } else {
                for (r, sums) in sums.iter().enumerate() {
                    *to.add(r) = S::total(sums[t]);
                }
            }
        }
    }
}
