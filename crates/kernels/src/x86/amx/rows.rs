//! Products of row-major `bf16` in tiles.
//!
//! The left factor is the weight as it lies in memory, 16 rows and 32 k to a tile. The right one is the
//! tokens, written so that a tile has 16 pairs of k in its rows and the tokens in its columns. An element is
//! summed pair by pair in increasing k, in one tile from the first to the last, whatever its neighbours.
#![allow(unsafe_code, reason = "tiles are reached through assembly, vectors through pointers")]

use super::transpose::transpose;
use super::{LINE, SIDE, Shapes};
use crate::columns::ColumnsMut;
use crate::linear::Rows;
use half::bf16;
use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::RefCell;

/// k of a tile.
const STEP: usize = 2 * SIDE;
/// Rows that stay in the second-level cache while all tokens go by, if there are many.
const BLOCK: usize = 64;

/// Tokens of a group, which share a tile, and groups. Fewer than 16 are a narrower tile.
fn groups(tokens: usize) -> (usize, usize) {
    (tokens.min(SIDE), tokens.div_ceil(SIDE))
}

/// Rounds `x` `[tokens, in_features]` to `bf16` and writes it for [`product`]: `[groups, steps, pairs of k,
/// tokens of a group, 2]`, padded with zeros.
pub(super) fn operand(x: &[f32], in_features: usize, out: &mut Vec<bf16>) {
    let tokens = x.len() / in_features;
    let (width, groups) = groups(tokens);
    let steps = in_features.div_ceil(STEP);
    out.resize(groups * steps * STEP * width, bf16::ZERO);
    let group = steps * STEP * width;
    for (out, x) in out.chunks_exact_mut(group).zip(x.chunks(width * in_features)) {
        for (step, out) in out.chunks_exact_mut(STEP * width).enumerate() {
            let depth = STEP.min(in_features - step * STEP);
            let from = &x[step * STEP..];
            if width == SIDE && depth == STEP && x.len() == SIDE * in_features {
                // SAFETY: 16 tokens have 32 values from here on, and the step has as many.
                unsafe { turn(from, in_features, out) };
            } else {
                turn_some(from, in_features, [width, depth], out);
            }
        }
    }
}

/// # Safety
/// `x` must have 32 values in each of 16 rows, `stride` apart, and `out` as many in all.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn turn(x: &[f32], stride: usize, out: &mut [bf16]) {
    let mut pairs = [_mm512_setzero_si512(); SIDE]; // of each token
    for (t, pairs) in pairs.iter_mut().enumerate() {
        let from = x.as_ptr().wrapping_add(t * stride);
        // SAFETY: the caller's promise; vectors of `bf16` are vectors of as many bits.
        unsafe {
            let (low, high) = (_mm512_loadu_ps(from), _mm512_loadu_ps(from.wrapping_add(SIDE)));
            *pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
        }
    }
    for (p, tokens) in transpose(pairs).into_iter().enumerate() {
        // SAFETY: `out` has room for 16 vectors.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().add(p * STEP).cast(), tokens) };
    }
}

/// As [`turn`], for fewer tokens or fewer k.
fn turn_some(x: &[f32], stride: usize, [width, depth]: [usize; 2], out: &mut [bf16]) {
    out.fill(bf16::ZERO);
    for (t, x) in x.chunks(stride).take(width).enumerate() {
        for (k, &x) in x[..depth].iter().enumerate() {
            out[k / 2 * 2 * width + 2 * t + k % 2] = bf16::from_f32(x);
        }
    }
}

thread_local! {
    /// Rows that are not 16, or whose length is no multiple of 32, copied where tiles can read them.
    static PADDED: RefCell<Vec<bf16>> = const { RefCell::new(Vec::new()) };
}

/// See [`Table::product_bf16`](crate::Table::product_bf16).
pub(super) fn product(factors: Rows<'_, bf16>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    let Rows { x, weight, in_features: k } = factors;
    let (width, groups) = groups(tokens);
    let steps = k.div_ceil(STEP);
    assert!(k > 0 && weight.len() == rows * k, "weight is [rows, {k}]");
    assert_eq!(x.len(), groups * steps * STEP * width, "x is written for tiles");
    if tokens == 0 {
        return;
    }
    let right = Right { x, group: steps * STEP * width, groups, width, tokens };
    let (stride, start) = (out.stride(), out.as_mut_ptr());
    // SAFETY: this table is handed out only where there are tiles.
    let _shapes = unsafe { Shapes::set((SIDE, 4 * width), (SIDE, LINE), (SIDE, 4 * width)) };
    let whole = if k.is_multiple_of(STEP) { rows / SIDE * SIDE } else { 0 };
    for first in (0..whole).step_by(BLOCK) {
        let count = BLOCK.min(whole - first);
        let left = Left { rows: weight[first * k..].as_ptr(), stride: k, count, steps };
        // SAFETY: `count` whole groups of rows stand at `left`, and at these columns of the output.
        unsafe { block(left, &right, start.wrapping_add(first), stride) };
    }
    PADDED.with_borrow_mut(|padded| {
        for first in (whole..rows).step_by(SIDE) {
            let count = SIDE.min(rows - first);
            padded.clear();
            padded.resize(SIDE * steps * STEP, bf16::ZERO);
            let lines = padded.chunks_exact_mut(steps * STEP).zip(weight[first * k..].chunks_exact(k));
            lines.take(count).for_each(|(line, row)| line[..k].copy_from_slice(row));
            let left = Left { rows: padded.as_ptr(), stride: steps * STEP, count, steps };
            // SAFETY: 16 rows stand at `left`; `count` are written.
            unsafe { block(left, &right, start.wrapping_add(first), stride) };
        }
    });
}

/// Some rows of the weight, in whole groups of 16 but for the last, which is padded in memory.
#[derive(Clone, Copy)]
struct Left {
    rows: *const bf16,
    stride: usize,
    count: usize,
    steps: usize,
}

/// The tokens.
struct Right<'a> {
    x: &'a [bf16],
    group: usize, // values of a group
    groups: usize,
    width: usize,
    tokens: usize,
}

/// The products of some rows and all tokens.
///
/// # Safety
/// `left` must have its rows, and `out` `[tokens, count]`, rows `stride` apart.
unsafe fn block(left: Left, right: &Right<'_>, out: *mut f32, stride: usize) {
    let mut sums = [0f32; 4 * SIDE * SIDE];
    let mut group = 0;
    while group < right.groups {
        let columns = if group + 2 <= right.groups { 2 } else { 1 };
        let mut row = 0;
        while row < left.count {
            let lines = if row + 2 * SIDE <= left.count { 2 } else { 1 };
            let a = left.rows.wrapping_add(row * left.stride);
            let ahead = a.wrapping_add(lines * SIDE * left.stride);
            let b = right.x[group * right.group..].as_ptr();
            let loop_ = Loop {
                a,
                a_stride: 2 * left.stride,
                b,
                b_stride: 4 * right.width,
                b_next: 2 * right.group,
                steps: left.steps,
                ahead,
            };
            // SAFETY: both factors have `steps` of these tiles, and `sums` room for four.
            unsafe {
                match (lines, columns) {
                    (2, 2) => loop_.two_by_two(&mut sums),
                    (1, 2) => loop_.one_by_two(&mut sums),
                    (2, _) => loop_.two_by_one(&mut sums),
                    _ => loop_.one_by_one(&mut sums),
                }
            }
            for (i, sums) in sums.chunks_exact(SIDE * SIDE).enumerate().take(lines * columns) {
                let (r, g) = (row + i / columns * SIDE, group + i % columns);
                let (rows, tokens) = (SIDE.min(left.count - r), right.width.min(right.tokens - g * SIDE));
                let out = out.wrapping_add(g * SIDE * stride + r);
                // SAFETY: these rows and tokens are the output's.
                unsafe { put(&sums[..SIDE * right.width], out, stride, [tokens, rows]) };
            }
            row += lines * SIDE;
        }
        group += columns;
    }
}

/// Writes a tile of sums, `[16 rows, width]`, as `[tokens, rows]`.
///
/// # Safety
/// `out` must have `tokens` of `rows`, `stride` apart.
#[inline]
unsafe fn put(sums: &[f32], out: *mut f32, stride: usize, [tokens, rows]: [usize; 2]) {
    let width = sums.len() / SIDE;
    if width == SIDE {
        // SAFETY: 16 vectors stand in `sums`; masked lanes are not written; this table has the instructions.
        unsafe { put_turned(sums, out, stride, [tokens, rows]) };
        return;
    }
    for t in 0..tokens {
        for r in 0..rows {
            // SAFETY: the caller's promise.
            unsafe { *out.add(t * stride + r) = sums[r * width + t] };
        }
    }
}

/// # Safety
/// As [`put`], for 16 × 16 sums.
#[target_feature(enable = "avx512f")]
unsafe fn put_turned(sums: &[f32], out: *mut f32, stride: usize, [tokens, rows]: [usize; 2]) {
    let mut lines = [_mm512_setzero_si512(); SIDE];
    for (line, sums) in lines.iter_mut().zip(sums.chunks_exact(SIDE)) {
        // SAFETY: 16 floats.
        *line = unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) };
    }
    let mask = ((1u32 << rows) - 1) as u16;
    for (t, line) in transpose(lines).into_iter().enumerate().take(tokens) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_mask_storeu_epi32(out.add(t * stride).cast(), mask, line) };
    }
}

/// The way of some tiles through k.
struct Loop {
    a: *const bf16,
    a_stride: usize, // bytes
    b: *const bf16,
    b_stride: usize, // bytes
    b_next: usize,   // bytes from a group to the next
    steps: usize,
    ahead: *const bf16, // asked for meanwhile
}

/// Defines a method of `Loop` over `$lines` tiles of rows: `$first` tiles are cleared, `$step` is done for every step of k, `$last` stores.
macro_rules! tile_loop {
    ($lines:literal, $name:ident, [$($first:literal),*], [$($step:literal),*], [$($last:literal),*]) => {
        /// # Safety
        /// Both factors must have `steps` tiles; the shapes must be set.
        #[inline]
        unsafe fn $name(&self, sums: &mut [f32; 4 * SIDE * SIDE]) {
            let Self { a, a_stride, b, b_stride, b_next, steps, ahead } = *self;
            // SAFETY: the caller's promise; a prefetch of an address that does not exist is ignored. Tiles are
            // used by this file's assembly alone, and hold nothing when it ends.
            unsafe {
                asm!(
                    $($first,)*
                    "2:",
                    $($step,)*
                    ".set line, 0",
                    ".rept {lines}",
                    "prefetcht1 [{ahead} + line]",
                    ".set line, line + 64",
                    ".endr",
                    "add {ahead}, {a_step}",
                    "add {a0}, 64",
                    "add {a1}, 64",
                    "add {b0}, {b_step}",
                    "add {b1}, {b_step}",
                    "dec {steps}",
                    "jnz 2b",
                    $($last,)*
                    a0 = inout(reg) a => _,
                    a1 = inout(reg) a.cast::<u8>().wrapping_add(SIDE * a_stride) => _,
                    b0 = inout(reg) b => _,
                    b1 = inout(reg) b.cast::<u8>().wrapping_add(b_next) => _,
                    sa = in(reg) a_stride,
                    sb = in(reg) b_stride,
                    b_step = in(reg) SIDE * b_stride,
                    lines = const $lines * SIDE,
                    a_step = const $lines * SIDE * LINE,
                    steps = inout(reg) steps => _,
                    ahead = inout(reg) ahead => _,
                    out = in(reg) sums.as_mut_ptr(),
                    options(nostack),
                );
            }
        }
    };
}

impl Loop {
    tile_loop!(
        2,
        two_by_two,
        ["tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3"],
        [
            "tileloadd tmm4, [{a0} + {sa}*1]",
            "tileloadd tmm6, [{b0} + {sb}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {sb}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{a1} + {sa}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7"
        ],
        [
            "tilestored [{out} + {sb}*1], tmm0",
            "tilestored [{out} + {sb}*1 + 1024], tmm1",
            "tilestored [{out} + {sb}*1 + 2048], tmm2",
            "tilestored [{out} + {sb}*1 + 3072], tmm3"
        ]
    );
    tile_loop!(
        1,
        one_by_two,
        ["tilezero tmm0", "tilezero tmm1"],
        [
            "tileloadd tmm4, [{a0} + {sa}*1]",
            "tileloadd tmm6, [{b0} + {sb}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {sb}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7"
        ],
        ["tilestored [{out} + {sb}*1], tmm0", "tilestored [{out} + {sb}*1 + 1024], tmm1"]
    );
    tile_loop!(
        2,
        two_by_one,
        ["tilezero tmm0", "tilezero tmm2"],
        [
            "tileloadd tmm6, [{b0} + {sb}*1]",
            "tileloadd tmm4, [{a0} + {sa}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {sa}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6"
        ],
        ["tilestored [{out} + {sb}*1], tmm0", "tilestored [{out} + {sb}*1 + 1024], tmm2"]
    );
    tile_loop!(
        1,
        one_by_one,
        ["tilezero tmm0"],
        ["tileloadd tmm6, [{b0} + {sb}*1]", "tileloadd tmm4, [{a0} + {sa}*1]", "tdpbf16ps tmm0, tmm4, tmm6"],
        ["tilestored [{out} + {sb}*1], tmm0"]
    );
}
