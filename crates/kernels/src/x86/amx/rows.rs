//! Products of row-major `bf16` in tiles.
//!
//! The left factor is the weight as it lies in memory, 16 rows and 32 k to a tile. The right one is the
//! tokens, written so that a tile has 16 pairs of k in its rows and the tokens in its columns. An element is
//! summed pair by pair in increasing k, in one tile from the first to the last, whatever its neighbours.
#![allow(unsafe_code, reason = "tiles are reached through assembly, vectors through pointers")]

use super::transpose::transpose;
use super::{LINE, SIDE, Shapes};
use crate::aligned::Aligned;
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
/// Groups of tokens that are few.
const FEW_GROUPS: usize = 2;

/// Tokens of a group, which share a tile, and groups. Fewer than 16 are a narrower tile.
fn groups(tokens: usize) -> (usize, usize) {
    (tokens.min(SIDE), tokens.div_ceil(SIDE))
}

/// Values that [`operand`] writes.
pub(super) fn operand_len(tokens: usize, in_features: usize) -> usize {
    let (width, groups) = groups(tokens);
    groups * in_features.div_ceil(STEP) * STEP * width
}

/// Rounds `x` `[tokens, in_features]` to `bf16` and writes it for [`product`]: `[groups, steps, pairs of k,
/// tokens of a group, 2]`, padded with zeros.
pub(super) fn operand(x: &[f32], in_features: usize, out: &mut [bf16]) {
    let tokens = x.len() / in_features;
    let (width, groups) = groups(tokens);
    let steps = in_features.div_ceil(STEP);
    assert_eq!(out.len(), groups * steps * STEP * width, "room for whole tiles");
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
    /// Rows of the weight, copied tile by tile: rows 4096 bytes apart would share a set of the first cache.
    static PACKED: RefCell<Aligned<bf16>> = RefCell::default();
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
    // A few tokens read the rows where they lie. What many read again and again is copied first.
    let as_it_lies = groups <= FEW_GROUPS && k.is_multiple_of(STEP);
    let whole = if as_it_lies { rows / SIDE * SIDE } else { 0 };
    if whole > 0 {
        let left = Left { rows: weight.as_ptr(), stride: k, step: STEP, count: whole, steps };
        // SAFETY: `whole` rows stand at `left`, and as many columns in the output.
        unsafe { block(left, &right, start, stride) };
    }
    PACKED.with_borrow_mut(|packed| {
        for first in (whole..rows).step_by(BLOCK) {
            let count = BLOCK.min(rows - first);
            pack(&weight[first * k..][..count * k], k, packed);
            let left = Left { rows: packed.values().as_ptr(), stride: STEP, step: SIDE * STEP, count, steps };
            // SAFETY: `count` rows, padded to whole groups, stand at `left`; `count` columns are written.
            unsafe { block(left, &right, start.wrapping_add(first), stride) };
        }
    });
}

/// Copies `rows` of `k` as tiles, `[groups of 16, steps, 16 rows, 32 k]`, padded with zeros.
fn pack(rows: &[bf16], k: usize, packed: &mut Aligned<bf16>) {
    let (steps, count) = (k.div_ceil(STEP), rows.len() / k);
    let packed = packed.resize(count.next_multiple_of(SIDE) * steps * STEP);
    if !k.is_multiple_of(STEP) || !count.is_multiple_of(SIDE) {
        packed.fill(bf16::ZERO);
    }
    for (r, row) in rows.chunks_exact(k).enumerate() {
        let tiles = packed[r / SIDE * steps * SIDE * STEP..].chunks_exact_mut(SIDE * STEP);
        let (steps, rest) = row.as_chunks::<STEP>();
        let lines = tiles.map(|tile| tile[r % SIDE * STEP..].first_chunk_mut::<STEP>().expect("a tile's row"));
        for (line, values) in lines.zip(steps) {
            *line = *values;
        }
        if !rest.is_empty() {
            let last = (r / SIDE * steps.len() + r / SIDE + steps.len()) * SIDE * STEP + r % SIDE * STEP;
            packed[last..][..rest.len()].copy_from_slice(rest);
        }
    }
}

/// Some rows of the weight, in whole groups of 16 but for the last, which is padded in memory.
#[derive(Clone, Copy)]
struct Left {
    rows: *const bf16,
    stride: usize, // from row to row
    step: usize,   // from step to step
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
    let mut sums = Sums([0f32; 4 * SIDE * SIDE]);
    let mut group = 0;
    while group < right.groups {
        let columns = if group + 2 <= right.groups { 2 } else { 1 };
        let mut row = 0;
        while row < left.count {
            let lines = if row + 2 * SIDE <= left.count { 2 } else { 1 };
            // A group of rows has the same length either way.
            let length = left.steps * STEP;
            let a = left.rows.wrapping_add(row * length);
            let ahead = a.wrapping_add(lines * SIDE * length);
            let b = right.x[group * right.group..].as_ptr();
            let loop_ = Loop {
                a,
                a_stride: 2 * left.stride,
                a_step: 2 * left.step,
                a_next: 2 * SIDE * length,
                b,
                b_stride: 4 * right.width,
                b_next: 2 * right.group,
                steps: left.steps,
                ahead,
            };
            // SAFETY: both factors have `steps` of these tiles, and `sums` room for four.
            unsafe {
                match (lines, columns) {
                    (2, 2) => loop_.two_by_two(&mut sums.0),
                    (1, 2) => loop_.one_by_two(&mut sums.0),
                    (2, _) => loop_.two_by_one(&mut sums.0),
                    _ => loop_.one_by_one(&mut sums.0),
                }
            }
            for (i, sums) in sums.0.chunks_exact(SIDE * SIDE).enumerate().take(lines * columns) {
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

/// Four tiles of sums.
#[repr(align(64))]
struct Sums([f32; 4 * SIDE * SIDE]);

/// The way of some tiles through k.
struct Loop {
    a: *const bf16,
    a_stride: usize, // bytes
    a_step: usize,   // bytes
    a_next: usize,   // bytes from a group to the next
    b: *const bf16,
    b_stride: usize, // bytes
    b_next: usize,   // bytes from a group to the next
    steps: usize,
    ahead: *const bf16, // asked for meanwhile
}

/// Defines a method of `Loop` : it asks for `$ahead` lines in a step; `$first` tiles are cleared, `$step` is done for every step of k, `$last` stores.
macro_rules! tile_loop {
    ($name:ident, ahead: $ahead:expr, [$($first:literal),*], [$($step:literal),*], [$($last:literal),*]) => {
        /// # Safety
        /// Both factors must have `steps` tiles; the shapes must be set.
        #[inline]
        unsafe fn $name(&self, sums: &mut [f32; 4 * SIDE * SIDE]) {
            let Self { a, a_stride, a_step, a_next, b, b_stride, b_next, steps, ahead } = *self;
            // SAFETY: the caller's promise; a prefetch of an address that does not exist is ignored. Tiles are
            // used by this file's assembly alone, and hold nothing when it ends.
            unsafe {
                asm!(
                    $($first,)*
                    "2:",
                    $($step,)*
                    ".set line, 0",
                    ".rept {ahead_lines}",
                    "prefetcht1 [{ahead} + line]",
                    ".set line, line + 64",
                    ".endr",
                    "add {ahead}, {ahead_lines} * 64",
                    "add {a0}, {a_step}",
                    "add {a1}, {a_step}",
                    "add {b0}, {b_step}",
                    "add {b1}, {b_step}",
                    "dec {steps}",
                    "jnz 2b",
                    $($last,)*
                    a0 = inout(reg) a => _,
                    a1 = inout(reg) a.cast::<u8>().wrapping_add(a_next) => _,
                    b0 = inout(reg) b => _,
                    b1 = inout(reg) b.cast::<u8>().wrapping_add(b_next) => _,
                    sa = in(reg) a_stride,
                    sb = in(reg) b_stride,
                    b_step = in(reg) SIDE * b_stride,
                    ahead_lines = const $ahead,
                    a_step = in(reg) a_step,
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
    tile_loop!(two_by_two, ahead: 0,
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
        ]);
    tile_loop!(one_by_two, ahead: 0,
        ["tilezero tmm0", "tilezero tmm1"],
        [
            "tileloadd tmm4, [{a0} + {sa}*1]",
            "tileloadd tmm6, [{b0} + {sb}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{b1} + {sb}*1]",
            "tdpbf16ps tmm1, tmm4, tmm7"
        ],
        ["tilestored [{out} + {sb}*1], tmm0", "tilestored [{out} + {sb}*1 + 1024], tmm1"]);
    tile_loop!(two_by_one, ahead: 2 * SIDE,
        ["tilezero tmm0", "tilezero tmm2"],
        [
            "tileloadd tmm6, [{b0} + {sb}*1]",
            "tileloadd tmm4, [{a0} + {sa}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {sa}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6"
        ],
        ["tilestored [{out} + {sb}*1], tmm0", "tilestored [{out} + {sb}*1 + 1024], tmm2"]);
    tile_loop!(one_by_one, ahead: SIDE,
        ["tilezero tmm0"],
        ["tileloadd tmm6, [{b0} + {sb}*1]", "tileloadd tmm4, [{a0} + {sa}*1]", "tdpbf16ps tmm0, tmm4, tmm6"],
        ["tilestored [{out} + {sb}*1], tmm0"]);
}
