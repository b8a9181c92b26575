//! Products of row-major `bf16` in tiles.
//!
//! The left factor is the weight as it lies in memory, 16 rows and 32 k to a tile. The right one is the
//! tokens, written so that a tile has 16 pairs of k in its rows and the tokens in its columns. An element is
//! summed pair by pair in increasing k, in one tile from the first to the last, whatever its neighbours.
#![allow(unsafe_code, reason = "tiles are reached through assembly, vectors through pointers")]

use super::operand::{STEP, groups};
use super::transpose::transpose;
use super::way::{AHEAD, Stream, Sums, Way};
use super::{LINE, SIDE, Shapes};
use crate::aligned::Aligned;
use crate::columns::ColumnsMut;
use crate::linear::Rows;
use half::bf16;
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Rows that stay in the second-level cache while all tokens go by, if there are many.
const BLOCK: usize = 64;

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
    // SAFETY: this table has AVX-512 and tiles, the shapes are set, and both factors and the output are as long
    // as they were checked to be.
    unsafe {
        // Rows that tiles can read where they lie.
        let whole = if groups == 1 && k.is_multiple_of(STEP) { rows / SIDE * SIDE } else { 0 };
        few(&weight[..whole * k], k, &right, start, stride);
        many(&weight[whole * k..], k, &right, start.wrapping_add(whole), stride);
    }
}

/// Few tokens read the rows where they lie, 16 at a time, and ask for what comes [`AHEAD`] steps later.
///
/// # Safety
/// The factors must belong together and `out` be `[tokens, rows]`, rows `stride` apart; the shapes must be set,
/// `k` be a multiple of 32, and the rows one of 16.
unsafe fn few(weight: &[bf16], k: usize, right: &Right<'_>, out: *mut f32, stride: usize) {
    let steps = k / STEP;
    for (index, rows) in weight.chunks_exact(SIDE * k).enumerate() {
        // SAFETY: the shapes are set; both factors have these steps; what is asked for need not exist.
        unsafe {
            Sums::clear();
            let along = steps.saturating_sub(AHEAD);
            let a = rows.as_ptr();
            Stream {
                a,
                stride: 2 * k,
                ahead: AHEAD * LINE,
                b: right.x.as_ptr(),
                width: right.width,
                steps: along,
            }
            .multiply();
            let (a, b) = (a.add(along * STEP), right.x[along * STEP * right.width..].as_ptr());
            let ahead = SIDE * 2 * k - along * LINE;
            Stream { a, stride: 2 * k, ahead, b, width: right.width, steps: steps - along }.multiply();
            let out = (out.wrapping_add(index * SIDE), stride, SIDE);
            right.put(&Sums::take(right.width), [1, right.groups], [0, 0], out);
        }
    }
}

/// Many tokens find the rows, copied as tiles, in the second-level cache.
///
/// # Safety
/// As [`few`].
unsafe fn many(weight: &[bf16], k: usize, right: &Right<'_>, out: *mut f32, stride: usize) {
    let steps = k.div_ceil(STEP);
    PACKED.with_borrow_mut(|packed| {
        for (index, rows) in weight.chunks(BLOCK * k).enumerate() {
            let count = rows.len() / k;
            let tiles = packed.resize(count.next_multiple_of(SIDE) * steps * STEP);
            for (row, from) in rows.chunks_exact(k).enumerate() {
                let tiles = &mut tiles[row / SIDE * SIDE * steps * STEP..][..SIDE * steps * STEP];
                // SAFETY: the row has `k` values, and its group of tiles room for 16 rows.
                unsafe { copy_row(from, row % SIDE, tiles) };
            }
            let out = out.wrapping_add(index * BLOCK);
            for group in (0..right.groups).step_by(2) {
                let columns = (right.groups - group).min(2);
                for row in (0..count).step_by(2 * SIDE) {
                    let lines = (count - row).div_ceil(SIDE).min(2);
                    let (a, b) =
                        (tiles[row * steps * STEP..].as_ptr(), right.x[group * right.group..].as_ptr());
                    // SAFETY: both factors have these tiles, and the output these rows.
                    unsafe {
                        let a_next = 2 * SIDE * steps * STEP;
                        Sums::clear();
                        right.way(a, a_next, b, steps).multiply(lines, columns);
                        right.put(
                            &Sums::take(right.width),
                            [lines, columns],
                            [row, group],
                            (out, stride, count),
                        );
                    }
                }
            }
        }
    });
}

/// Copies a row into its place in the tiles of its group, `[steps, 16 rows, 32 k]`, and asks for what follows it.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn copy_row(row: &[bf16], place: usize, tiles: &mut [bf16]) {
    const AHEAD: usize = 1 << 10;
    for (from, tile) in row.chunks(STEP).zip(tiles.chunks_exact_mut(SIDE * STEP)) {
        let mask = ((1u64 << from.len()) - 1) as u32;
        // SAFETY: masked values are not read, and what is asked for need not exist; a tile has 16 rows.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast::<i8>().wrapping_add(AHEAD));
            let values = _mm512_maskz_loadu_epi16(mask, from.as_ptr().cast());
            _mm512_storeu_si512(tile.as_mut_ptr().add(place * STEP).cast(), values);
        }
    }
}

/// The tokens.
struct Right<'a> {
    x: &'a [bf16],
    group: usize, // values of a group
    groups: usize,
    width: usize,
    tokens: usize,
}

impl Right<'_> {
    /// From two groups of rows at `a`, `a_next` bytes apart, and two groups of tokens at `b`.
    fn way(&self, a: *const bf16, a_next: usize, b: *const bf16, steps: usize) -> Way {
        Way { a, a_next, b, b_stride: 4 * self.width, b_next: 2 * self.group, steps }
    }

    /// Writes the sums of `lines` groups of rows and `columns` groups of tokens from `[row, group]` on to an
    /// output of so many tokens, its stride, and its count of rows.
    ///
    /// # Safety
    /// The output must have them.
    unsafe fn put(
        &self,
        sums: &Sums,
        [lines, columns]: [usize; 2],
        [row, group]: [usize; 2],
        (out, stride, count): (*mut f32, usize, usize),
    ) {
        for (i, sums) in sums.0.chunks_exact(SIDE * SIDE).enumerate() {
            let (line, column) = (i / 2, i % 2);
            if line < lines && column < columns {
                let (r, g) = (row + line * SIDE, group + column);
                let (rows, tokens) = (SIDE.min(count - r), self.width.min(self.tokens - g * SIDE));
                let out = out.wrapping_add(g * SIDE * stride + r);
                // SAFETY: the caller's promise.
                unsafe { put(&sums[..SIDE * self.width], out, stride, [tokens, rows]) };
            }
        }
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
