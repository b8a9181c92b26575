//! Products of row-major `bf16` in tiles.
//!
//! The left factor is the weight as it lies in memory, 16 rows and 32 k to a tile. The right one is the
//! tokens, written so that a tile has 16 pairs of k in its rows and the tokens in its columns. An element is
//! summed pair by pair in increasing k, in one tile from the first to the last, whatever its neighbours.
#![allow(unsafe_code, reason = "tiles are reached through assembly, vectors through pointers")]

use super::bf16_loops::{AHEAD, FourTiles, RowStream, TileSteps};
use super::bf16_tokens::{STEP, groups};
use super::tile::{LINE, SIDE, TileConfig, TileShape};
use super::transpose::transpose;
use crate::aligned::Aligned;
use crate::columns::ColumnsMut;
use crate::factors::RowFactors;
use half::bf16;
use std::arch::x86_64::*;
use std::cell::RefCell;

/// Rows that stay in the second-level cache while many tokens are multiplied by them.
const BLOCK: usize = 64;

thread_local! {
    /// Rows of the weight, copied tile by tile: rows 4096 bytes apart would share a set of the first cache.
    static PACKED: RefCell<Aligned<bf16>> = RefCell::default();
}

/// See [`Table::product_bf16`](crate::Table::product_bf16).
pub(super) fn product(factors: RowFactors<'_, bf16>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    let RowFactors { x, weight, in_features: k } = factors;
    let (width, groups) = groups(tokens);
    let steps = k.div_ceil(STEP);
    assert!(k > 0 && weight.len() == rows * k, "weight is [rows, {k}]");
    assert_eq!(x.len(), groups * steps * STEP * width, "x is written for tiles");
    if tokens == 0 {
        return;
    }
    let right = TokenTiles { x, group: steps * STEP * width, groups, width, tokens };
    let out = SumsOut { start: out.as_mut_ptr(), stride: out.stride() };
    let narrow = TileShape::tall(4 * width);
    // SAFETY: this table is handed out only where there are tiles.
    let _config = unsafe { TileConfig::set(narrow, TileShape::tall(LINE), narrow) };
    // SAFETY: this table has AVX-512 and tiles, the tiles are configured, and both factors and the output are
    // as long as they were checked to be.
    unsafe {
        // Rows that tiles can read where they lie.
        let whole = if groups == 1 && k.is_multiple_of(STEP) { rows / SIDE * SIDE } else { 0 };
        few(&weight[..whole * k], k, &right, out);
        many(&weight[whole * k..], k, &right, out.rows_from(whole));
    }
}

/// Where the sums go.
#[derive(Clone, Copy)]
struct SumsOut {
    start: *mut f32, // of the first token and row
    stride: usize,   // from token to token
}

impl SumsOut {
    fn rows_from(self, row: usize) -> Self {
        Self { start: self.start.wrapping_add(row), ..self }
    }

    fn tokens_from(self, token: usize) -> Self {
        Self { start: self.start.wrapping_add(token * self.stride), ..self }
    }
}

/// Few tokens read the rows where they lie, 16 at a time, and prefetch what comes [`AHEAD`] steps later.
///
/// # Safety
/// The factors must belong together and `out` be `[tokens, rows]`; the tiles must be configured, `k` must be
/// a multiple of 32, and the number of rows one of 16.
unsafe fn few(weight: &[bf16], k: usize, right: &TokenTiles<'_>, out: SumsOut) {
    let steps = k / STEP;
    for (index, rows) in weight.chunks_exact(SIDE * k).enumerate() {
        // SAFETY: the tiles are configured; both factors have these steps; what is prefetched need not exist.
        unsafe {
            FourTiles::clear();
            let along = steps.saturating_sub(AHEAD);
            let (a, b) = (rows.as_ptr(), right.x.as_ptr());
            let (stride, width) = (2 * k, right.width);
            RowStream { a, stride, ahead: AHEAD * LINE, b, width, steps: along }.multiply();
            let (a, b) = (a.add(along * STEP), right.x[along * STEP * width..].as_ptr());
            let ahead = SIDE * 2 * k - along * LINE;
            RowStream { a, stride, ahead, b, width, steps: steps - along }.multiply();
            let square = Square { row: 0, rows: SIDE, group: 0 };
            right.put(&FourTiles::take(width), square, out.rows_from(index * SIDE));
        }
    }
}

/// Many tokens find the rows, copied as tiles, in the second-level cache.
///
/// # Safety
/// As [`few`].
unsafe fn many(weight: &[bf16], k: usize, right: &TokenTiles<'_>, out: SumsOut) {
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
            let out = out.rows_from(index * BLOCK);
            for group in (0..right.groups).step_by(2) {
                for row in (0..count).step_by(2 * SIDE) {
                    let square = Square { row, rows: count - row, group };
                    let a = tiles[row * steps * STEP..].as_ptr();
                    let b = right.x[group * right.group..].as_ptr();
                    // SAFETY: both factors have these tiles, and the output these rows.
                    unsafe {
                        FourTiles::clear();
                        right.steps(a, b, steps).multiply(square.lines(), right.columns(square));
                        right.put(&FourTiles::take(right.width), square, out);
                    }
                }
            }
        }
    });
}

/// Copies a row into its place in the tiles of its group, `[steps, 16 rows, 32 k]`, and prefetches what
/// follows.
///
/// # Safety
/// The processor must have the instructions.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn copy_row(row: &[bf16], place: usize, tiles: &mut [bf16]) {
    const AHEAD: usize = 1 << 10;
    for (from, tile) in row.chunks(STEP).zip(tiles.chunks_exact_mut(SIDE * STEP)) {
        let mask = ((1u64 << from.len()) - 1) as u32;
        // SAFETY: masked values are not read, and what is prefetched need not exist; a tile has 16 rows.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(from.as_ptr().cast::<i8>().wrapping_add(AHEAD));
            let values = _mm512_maskz_loadu_epi16(mask, from.as_ptr().cast());
            _mm512_storeu_si512(tile.as_mut_ptr().add(place * STEP).cast(), values);
        }
    }
}

/// Up to two groups of 16 rows and two groups of tokens, which four tiles of sums hold.
#[derive(Clone, Copy)]
struct Square {
    row: usize,   // the first
    rows: usize,  // that are left from there on
    group: usize, // the first
}

impl Square {
    /// Groups of rows.
    fn lines(self) -> usize {
        self.rows.div_ceil(SIDE).min(2)
    }
}

/// The tokens, as tiles.
struct TokenTiles<'a> {
    x: &'a [bf16],
    group: usize, // values of a group
    groups: usize,
    width: usize, // tokens of a group
    tokens: usize,
}

impl TokenTiles<'_> {
    /// Groups of tokens of a square.
    fn columns(&self, square: Square) -> usize {
        (self.groups - square.group).min(2)
    }

    /// All steps of k, for two groups of rows at `a` and two groups of tokens at `b`.
    fn steps(&self, a: *const bf16, b: *const bf16, steps: usize) -> TileSteps {
        let a_next = 2 * SIDE * steps * STEP;
        TileSteps { a, a_next, b, b_stride: 4 * self.width, b_next: 2 * self.group, steps }
    }

    /// Writes the sums of a square.
    ///
    /// # Safety
    /// The output must have its rows and tokens.
    unsafe fn put(&self, sums: &FourTiles, square: Square, out: SumsOut) {
        for (i, sums) in sums.0.chunks_exact(SIDE * SIDE).enumerate() {
            let (line, column) = (i / 2, i % 2);
            if line < square.lines() && column < self.columns(square) {
                let (first, group) = (line * SIDE, square.group + column);
                let (rows, tokens) =
                    (SIDE.min(square.rows - first), self.width.min(self.tokens - group * SIDE));
                let out = out.tokens_from(group * SIDE).rows_from(square.row + first);
                // SAFETY: the caller's promise.
                unsafe { put(&sums[..SIDE * self.width], out, tokens, rows) };
            }
        }
    }
}

/// Writes a tile of sums, `[16 rows, width]`, as `[tokens, rows]`.
///
/// # Safety
/// `out` must have `tokens` of `rows`.
#[inline]
unsafe fn put(sums: &[f32], out: SumsOut, tokens: usize, rows: usize) {
    let width = sums.len() / SIDE;
    if width == SIDE {
        // SAFETY: 16 vectors stand in `sums`; masked lanes are not written; this table has the instructions.
        unsafe { put_transposed(sums, out, tokens, rows) };
        return;
    }
    for t in 0..tokens {
        for r in 0..rows {
            // SAFETY: the caller's promise.
            unsafe { *out.start.add(t * out.stride + r) = sums[r * width + t] };
        }
    }
}

/// # Safety
/// As [`put`], for 16 × 16 sums.
#[target_feature(enable = "avx512f")]
unsafe fn put_transposed(sums: &[f32], out: SumsOut, tokens: usize, rows: usize) {
    let mut lines = [_mm512_setzero_si512(); SIDE];
    for (line, sums) in lines.iter_mut().zip(sums.chunks_exact(SIDE)) {
        // SAFETY: 16 floats.
        *line = unsafe { _mm512_loadu_si512(sums.as_ptr().cast()) };
    }
    let mask = ((1u32 << rows) - 1) as u16;
    for (t, line) in transpose(lines).into_iter().enumerate().take(tokens) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_mask_storeu_epi32(out.start.add(t * out.stride).cast(), mask, line) };
    }
}
