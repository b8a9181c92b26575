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
pub(super) fn operand(x: &[f32], in_features: usize, all: usize, out: &mut [bf16]) {
    let tokens = x.len() / in_features;
    let (width, _) = groups(all);
    let groups = tokens.div_ceil(width);
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
            Stream { a, stride: 2 * k, ahead: AHEAD * LINE, b: right.x.as_ptr(), right, steps: along }
                .multiply();
            let (a, b) = (a.add(along * STEP), right.x[along * STEP * right.width..].as_ptr());
            let ahead = SIDE * 2 * k - along * LINE;
            Stream { a, stride: 2 * k, ahead, b, right, steps: steps - along }.multiply();
            let out = (out.wrapping_add(index * SIDE), stride, SIDE);
            right.put(&Sums::take(right.width), [1, right.groups], [0, 0], out);
        }
    }
}

/// Some steps of 16 rows and few tokens.
struct Stream<'a> {
    a: *const bf16,
    stride: usize, // bytes from row to row
    ahead: usize,  // bytes from what is multiplied to what is asked for
    b: *const bf16,
    right: &'a Right<'a>,
    steps: usize,
}

/// Steps by which memory is asked before.
const AHEAD: usize = 16;

/// Defines a method of `Stream` that does `$step` for every step of k.
macro_rules! stream {
    ($name:ident, $($step:literal),*) => {
        /// # Safety
        /// As [`Stream::multiply`].
        #[inline]
        unsafe fn $name(&self) {
            let Self { a, stride, ahead, b, right, steps } = *self;
            let p = a.cast::<u8>().wrapping_add(ahead);
            // SAFETY: the caller's promise. The compiler uses no tiles: sums stay in theirs from block to block.
            unsafe {
                asm!(
                    "2:",
                    $($step,)*
                    "prefetcht0 [{p0}]",
                    "prefetcht0 [{p0} + {sa}]",
                    "prefetcht0 [{p0} + {sa}*2]",
                    "prefetcht0 [{p0} + {s3}]",
                    "prefetcht0 [{p4}]",
                    "prefetcht0 [{p4} + {sa}]",
                    "prefetcht0 [{p4} + {sa}*2]",
                    "prefetcht0 [{p4} + {s3}]",
                    "prefetcht0 [{p8}]",
                    "prefetcht0 [{p8} + {sa}]",
                    "prefetcht0 [{p8} + {sa}*2]",
                    "prefetcht0 [{p8} + {s3}]",
                    "prefetcht0 [{p12}]",
                    "prefetcht0 [{p12} + {sa}]",
                    "prefetcht0 [{p12} + {sa}*2]",
                    "prefetcht0 [{p12} + {s3}]",
                    "add {a0}, 64",
                    "add {p0}, 64",
                    "add {p4}, 64",
                    "add {p8}, 64",
                    "add {p12}, 64",
                    "add {b0}, {b_step}",
                    "dec {steps}",
                    "jnz 2b",
                    a0 = inout(reg) a => _,
                    p0 = inout(reg) p => _,
                    p4 = inout(reg) p.wrapping_add(4 * stride) => _,
                    p8 = inout(reg) p.wrapping_add(8 * stride) => _,
                    p12 = inout(reg) p.wrapping_add(12 * stride) => _,
                    sa = in(reg) stride,
                    s3 = in(reg) 3 * stride,
                    b0 = inout(reg) b => _,
                    sb = in(reg) 4 * right.width,
                    b_step = in(reg) SIDE * 4 * right.width,
                    steps = inout(reg) steps => _,
                    options(nostack, readonly),
                );
            }
        }
    };
}

impl Stream<'_> {
    /// Adds the products of 16 rows and the tokens to the tiles that hold sums.
    ///
    /// # Safety
    /// Both factors must have `steps` tiles; the shapes must be set.
    unsafe fn multiply(&self) {
        if self.steps > 0 {
            // SAFETY: the caller's promise.
            unsafe { self.one() }
        }
    }

    stream!(
        one,
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6"
    );
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

/// The way of some tiles through k.
struct Way {
    a: *const bf16,
    a_next: usize, // bytes from a group of rows to the next
    b: *const bf16,
    b_stride: usize, // bytes from a pair of k to the next
    b_next: usize,   // bytes from a group of tokens to the next
    steps: usize,
}

/// Defines a method of `Way` that does `$step` for every step of k.
macro_rules! way {
    ($name:ident, $($step:literal),*) => {
        /// # Safety
        /// As [`Way::multiply`].
        #[inline]
        unsafe fn $name(&self) {
            let Self { a, a_next, b, b_stride, b_next, steps } = *self;
            // SAFETY: the caller's promise. The compiler uses no tiles: sums stay in theirs from block to block.
            unsafe {
                asm!(
                    "2:",
                    $($step,)*
                    "add {a0}, {tile}",
                    "add {a1}, {tile}",
                    "add {b0}, {b_step}",
                    "add {b1}, {b_step}",
                    "dec {steps}",
                    "jnz 2b",
                    a0 = inout(reg) a => _,
                    a1 = inout(reg) a.cast::<u8>().wrapping_add(a_next) => _,
                    b0 = inout(reg) b => _,
                    b1 = inout(reg) b.cast::<u8>().wrapping_add(b_next) => _,
                    tile = const SIDE * LINE,
                    sa = in(reg) LINE,
                    sb = in(reg) b_stride,
                    b_step = in(reg) SIDE * b_stride,
                    steps = inout(reg) steps => _,
                    options(nostack, readonly),
                );
            }
        }
    };
}

impl Way {
    /// Adds the products of `lines` groups of rows and `columns` groups of tokens, one or two of each, to the
    /// tiles that hold sums.
    ///
    /// # Safety
    /// Both factors must have `steps` tiles; the shapes must be set.
    unsafe fn multiply(&self, lines: usize, columns: usize) {
        if self.steps == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            match (lines, columns) {
                (1, 1) => self.one_by_one(),
                (1, _) => self.one_by_two(),
                (_, 1) => self.two_by_one(),
                _ => self.two_by_two(),
            }
        }
    }

    way!(
        two_by_two,
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {sb}*1]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{a1} + {sa}*1]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7"
    );
    way!(
        one_by_two,
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {sb}*1]",
        "tdpbf16ps tmm1, tmm4, tmm7"
    );
    way!(
        two_by_one,
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{a1} + {sa}*1]",
        "tdpbf16ps tmm2, tmm5, tmm6"
    );
    way!(
        one_by_one,
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6"
    );
}

/// Four tiles of sums: `[2 groups of rows, 2 groups of tokens]` of `[16, width]`.
#[repr(align(64))]
struct Sums([f32; 4 * SIDE * SIDE]);

impl Sums {
    /// Clears the tiles that hold sums.
    ///
    /// # Safety
    /// The shapes must be set.
    unsafe fn clear() {
        // SAFETY: the caller's promise.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3", options(nostack, nomem));
        }
    }

    /// What these tiles hold.
    ///
    /// # Safety
    /// As [`Sums::clear`].
    unsafe fn take(width: usize) -> Self {
        let mut sums = Self([0.0; 4 * SIDE * SIDE]);
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tilestored [{sums} + {sb}*1], tmm0",
                "tilestored [{sums} + {sb}*1 + 1024], tmm1",
                "tilestored [{sums} + {sb}*1 + 2048], tmm2",
                "tilestored [{sums} + {sb}*1 + 3072], tmm3",
                sums = in(reg) sums.0.as_mut_ptr(),
                sb = in(reg) 4 * width,
                options(nostack),
            );
        }
        sums
    }
}
