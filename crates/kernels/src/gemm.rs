//! Training's large products, in `f32` or in `bf16` with sums in `f32`.
//!
//! The method is that of Goto and van de Geijn (2008). The right operand is cut into blocks that fit the
//! last-level cache and packed there. Each thread packs rows of the left operand into its own second-level
//! cache, and multiplies them in tiles that fit the registers, or AMX's tiles.
//!
//! Every element of the output is summed in increasing k, in stretches of 256 words. So a product has the
//! same bits for any number of threads and any number of rows.
//!
//! For `bf16` operands are rounded while they are packed, to nearest and ties to even. Two values share a
//! word.

pub(crate) mod matrix;
pub(crate) mod micro;
pub(crate) mod portable;
#[cfg(test)]
mod tests;

pub use matrix::{Matrix, MatrixMut, Values};
pub use micro::{Micro, Write};

use crate::dispatch::active;
use crate::table::Table;
use micro::{DEPTH, Panels, blocks};
use rayon::prelude::*;
use std::cell::Cell;

/// Words of the packed right operand (8 MiB): a part of the last cache.
const RIGHT_WORDS: usize = 1 << 21;
/// Words of the packed rows of one task (256 KiB): a part of a second-level cache.
const LEFT_WORDS: usize = 1 << 16;

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread, for loops that are parallel already.
    One,
    /// The whole pool.
    All,
}

/// What the factors of a product are rounded to; sums are `f32`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Factors {
    /// Nothing is rounded.
    #[default]
    F32,
    /// 8 bits of mantissa, faster where the processor has AVX-512 BF16 and much faster where it has AMX.
    Bf16,
}

/// How a product is computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Product {
    /// What it is multiplied by.
    pub alpha: f32,
    /// What its factors are rounded to.
    pub factors: Factors,
    /// Who computes it.
    pub threads: Threads,
}

thread_local! {
    /// Each thread's packed operands, kept from product to product.
    static LEFT: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
    static RIGHT: Cell<Vec<u32>> = const { Cell::new(Vec::new()) };
}

/// The thread's buffer, or a new one of `len` words. The system provides its pages when they are touched.
fn take(buffer: &'static std::thread::LocalKey<Cell<Vec<u32>>>, len: usize) -> Vec<u32> {
    let held = buffer.take();
    if held.is_empty() { vec![0; len] } else { held }
}

/// Gives every thread its buffers, so that no product allocates later.
pub fn prepare() {
    let one = || {
        LEFT.set(take(&LEFT, LEFT_WORDS));
        RIGHT.set(take(&RIGHT, RIGHT_WORDS));
    };
    one();
    rayon::broadcast(|_| one());
}

/// `out = alpha · a · b`, or `out += alpha · a · b`, with the [active] table.
///
/// # Shapes
/// `out`: `[m, n]`, `a`: `[m, k]`, `b`: `[k, n]`
///
/// # Panics
/// If the shapes do not fit.
pub fn gemm(out: MatrixMut<'_>, write: Write, a: Matrix<'_>, b: Matrix<'_>, how: Product) {
    gemm_with(active(), out, write, a, b, how);
}

/// As [`gemm`], with a given table.
///
/// # Panics
/// As [`gemm`].
pub(crate) fn gemm_with(
    table: &Table,
    out: MatrixMut<'_>,
    write: Write,
    a: Matrix<'_>,
    b: Matrix<'_>,
    how: Product,
) {
    let [m, n, k] = [out.rows, out.cols, a.cols];
    assert!(
        m == a.rows && k == b.rows && n == b.cols,
        "[{m}, {n}] = [{}, {k}] · [{}, {}]",
        a.rows,
        b.rows,
        b.cols
    );
    if m == 0 || n == 0 {
        return;
    }
    if k == 0 {
        if write == Write::Replace {
            out.data.chunks_mut(out.row_stride).take(m).for_each(|row| row[..n].fill(0.0));
        }
        return;
    }
    let micro = match how.factors {
        Factors::F32 => table.gemm,
        Factors::Bf16 => table.gemm_bf16,
    };
    let (blocking, stride, data) = (Blocking::new(micro, [m, n, k], how.threads), out.row_stride, out.data);
    let mut packed = take(&RIGHT, RIGHT_WORDS);
    for columns in blocks(n, blocking.columns) {
        for ks in blocks(k, blocking.depth) {
            let right = &mut packed[..blocking.right_words([ks.len(), columns.len()])];
            pack_right(micro, b.part(ks.start, columns.start, ks.len(), columns.len()), right, how.threads);
            let write = if ks.start == 0 { write } else { Write::Add };
            let block = PackedBlock { micro, right, columns: columns.len(), alpha: how.alpha, write };
            let out = &mut data[columns.start..(m - 1) * stride + columns.end];
            all_rows(blocking.rows, how.threads, &block, a.part(0, ks.start, m, ks.len()), out, stride);
        }
    }
    RIGHT.set(packed);
}

/// The product of a block with all rows of the left operand, into rows `stride` apart; a task takes `rows` of
/// them.
fn all_rows(
    rows: usize,
    threads: Threads,
    block: &PackedBlock<'_>,
    a: Matrix<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let task = |(index, out): (usize, &mut [f32])| {
        let first = index * rows;
        block.rows(a.part(first, 0, rows.min(a.rows - first), a.cols), out, stride);
    };
    let size = rows * stride;
    match threads {
        Threads::One => out.chunks_mut(size).enumerate().for_each(task),
        Threads::All => out.par_chunks_mut(size).with_max_len(1).enumerate().for_each(task),
    }
}

/// How a product is cut.
struct Blocking<'a> {
    micro: &'a Micro,
    rows: usize,
    columns: usize,
    depth: usize,
}

impl<'a> Blocking<'a> {
    fn new(micro: &'a Micro, [m, n, k]: [usize; 3], threads: Threads) -> Self {
        let per_word = micro.per_word;
        let sharing = if threads == Threads::All { crate::pool::threads() } else { 1 };
        // Two tasks for each thread, so that a thread that is slowed down does less.
        let share = if sharing == 1 { m } else { m.div_ceil(2 * sharing) };
        let within =
            |wanted: usize, room: usize, tile: usize| wanted.next_multiple_of(tile).min(room / tile * tile);
        let rows = within(share, LEFT_WORDS / DEPTH, micro.rows);
        let columns = within(n, RIGHT_WORDS / DEPTH, micro.columns);
        let stretches = (RIGHT_WORDS / columns / DEPTH).max(1);
        let depth = (stretches * DEPTH * per_word).min(k.next_multiple_of(per_word));
        Self { micro, rows, columns, depth }
    }

    /// Words of a packed block of the right operand. Every stretch has the room of a whole one.
    fn right_words(&self, [depth, columns]: [usize; 2]) -> usize {
        let stretches = depth.div_ceil(DEPTH * self.micro.per_word);
        stretches * DEPTH * columns.next_multiple_of(self.micro.columns)
    }
}

/// Packs a block of the right operand: `[stretches, panels, words, columns of a panel]`.
fn pack_right(micro: &Micro, b: Matrix<'_>, right: &mut [u32], threads: Threads) {
    let (panels, stretch) = (b.cols.div_ceil(micro.columns), DEPTH * micro.per_word);
    let pack = |(index, panel): (usize, &mut [u32])| {
        let (k, column) = (index / panels * stretch, index % panels * micro.columns);
        let (depth, count) = (stretch.min(b.rows - k), micro.columns.min(b.cols - column));
        let source = b.part(k, column, depth, count).columns();
        (micro.pack_right)(source, micro.columns, &mut panel[..micro.words(depth) * micro.columns]);
    };
    let panel = DEPTH * micro.columns;
    match threads {
        Threads::One => right.chunks_exact_mut(panel).enumerate().for_each(pack),
        Threads::All => right.par_chunks_exact_mut(panel).enumerate().for_each(pack),
    }
}

/// A packed block of the right operand, and how its product is scaled and written.
#[derive(Clone, Copy)]
struct PackedBlock<'a> {
    micro: &'a Micro,
    right: &'a [u32],
    columns: usize,
    alpha: f32,
    write: Write,
}

impl PackedBlock<'_> {
    /// The product with some rows of the left operand, into rows `stride` apart.
    fn rows(&self, a: Matrix<'_>, out: &mut [f32], stride: usize) {
        let Self { micro, alpha, mut write, .. } = *self;
        let panels = self.columns.div_ceil(micro.columns);
        let mut packed = take(&LEFT, LEFT_WORDS);
        let stretches = self.right.chunks_exact(panels * DEPTH * micro.columns);
        for (ks, right) in blocks(a.cols, DEPTH * micro.per_word).zip(stretches) {
            let words = micro.words(ks.len());
            let left = &mut packed[..words * a.rows.next_multiple_of(micro.rows)];
            (micro.pack_left)(a.part(0, ks.start, a.rows, ks.len()).rows(), micro.rows, left);
            let size = [a.rows, self.columns];
            (micro.tiles)(Panels { left, right, words, size, stride, alpha, write }, out);
            write = Write::Add;
        }
        LEFT.set(packed);
    }
}
