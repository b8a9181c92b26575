//! The engine's product over the thread pool.

use crate::lanes::product_shape;
use crate::table::{Table, active};

/// Below this many multiply-adds a second thread costs more than it brings.
const WORTH_A_THREAD: usize = 1 << 17;

/// `out[t, r] = Σ_k x[t, k] · weight[r, k]` with the [active] table on all threads.
///
/// One token is split by rows, many are split by tokens; either way an element's bits are those of
/// [`Table::product`] on one thread.
///
/// # Shapes
/// `x`: `[tokens, in_features]`, `weight`: `[rows, in_features]`, `out`: `[tokens, rows]`
///
/// # Panics
/// If the slices do not have these shapes.
pub fn linear(x: &[f32], weight: &[f32], in_features: usize, out: &mut [f32]) {
    let (tokens, rows) = product_shape(x, weight, in_features, out);
    let parts = (tokens * rows * in_features / WORTH_A_THREAD).clamp(1, crate::pool::threads());
    if tokens == 1 {
        split(active(), Product { x, weight, in_features, parts, by_rows: true }, out);
    } else {
        split(active(), Product { x, weight, in_features, parts, by_rows: false }, out);
    }
}

/// A product and the number of threads that share it.
#[derive(Clone, Copy)]
struct Product<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    in_features: usize,
    parts: usize,
    by_rows: bool,
}

fn split(table: &Table, job: Product<'_>, out: &mut [f32]) {
    let Product { x, weight, in_features, parts, by_rows } = job;
    let (tokens, rows) = (x.len() / in_features, weight.len() / in_features);
    let units = if by_rows { rows } else { tokens };
    if parts <= 1 || units <= 1 {
        return (table.product)(x, weight, in_features, out);
    }
    let half = parts / 2;
    let cut = units * half / parts;
    let (low, high, out_cut) = if by_rows {
        let (low, high) = weight.split_at(cut * in_features);
        (
            Product { weight: low, parts: half, ..job },
            Product { weight: high, parts: parts - half, ..job },
            cut,
        )
    } else {
        let (low, high) = x.split_at(cut * in_features);
        (Product { x: low, parts: half, ..job }, Product { x: high, parts: parts - half, ..job }, cut * rows)
    };
    let (out_low, out_high) = out.split_at_mut(out_cut);
    rayon::join(|| split(table, low, out_low), || split(table, high, out_high));
}
