//! Root-mean-square norm of the samples that take part.
//!
//! The residual stream holds all samples; a layer works on those that layer dropout kept. This
//! operation reads the kept ones and packs them, so that dropped samples cost nothing after it.

use super::ROWS;
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::{NormRow, active};

/// Partial sums of the weight's gradient: one for each of so many stretches of rows, however many
/// threads there are.
pub const PARTS: usize = 16;

/// Which rows take part: row `r` of the packed buffers is row `of(r)` of the residual stream.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// The samples kept, ascending.
    pub kept: &'a [usize],
    /// Tokens of a sample.
    pub sequence: usize,
}

impl Rows<'_> {
    /// Rows of the packed buffers.
    pub fn len(&self) -> usize {
        self.kept.len() * self.sequence
    }

    /// Whether no sample was kept.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The residual stream's row for a packed row.
    pub fn of(&self, row: usize) -> usize {
        self.kept[row / self.sequence] * self.sequence + row % self.sequence
    }
}

/// Norms the kept rows of `x` into `out`.
///
/// # Shapes
/// `x`: `[all rows, hidden]`, `weight`: `[hidden]`, `out`: `[rows, hidden]`, `inv_rms`: `[rows]`
pub fn forward(
    rows: Rows<'_>,
    x: &[f32],
    (weight, eps): (&[f32], f32),
    out: &mut [f32],
    inv_rms: &mut [f32],
) {
    let hidden = weight.len();
    let tasks = out.par_chunks_mut(ROWS * hidden).zip(inv_rms.par_chunks_mut(ROWS)).enumerate();
    tasks.for_each(|(task, (out, inv_rms))| {
        for (i, (out, inv_rms)) in out.chunks_exact_mut(hidden).zip(inv_rms).enumerate() {
            let x = &x[rows.of(task * ROWS + i) * hidden..][..hidden];
            *inv_rms = (active().rms_norm)(x, weight, eps, out);
        }
    });
}

/// Adds the gradients of the packed rows: of the input to `d_x`, packed as well, and of the weight.
///
/// # Shapes
/// `x`: `[all rows, hidden]`, `d_out`, `d_x`: `[rows, hidden]`, `d_weight`: `[hidden]`,
/// `parts`: `[PARTS, hidden]`
pub fn backward(rows: Rows<'_>, saved: Saved<'_>, d_out: &[f32], d_x: &mut [f32], sums: Sums<'_>) {
    let Saved { x, weight, inv_rms } = saved;
    let Sums { d_weight, parts } = sums;
    let hidden = weight.len();
    let stretch = rows.len().div_ceil(PARTS).max(1);
    parts.fill(0.0);
    let tasks = d_x.par_chunks_mut(stretch * hidden).zip(parts.par_chunks_mut(hidden)).enumerate();
    tasks.for_each(|(task, (d_x, part))| {
        for (i, d_x) in d_x.chunks_exact_mut(hidden).enumerate() {
            let r = task * stretch + i;
            let (x, d_out) = (&x[rows.of(r) * hidden..][..hidden], &d_out[r * hidden..][..hidden]);
            let row = NormRow { x, weight, inv_rms: inv_rms[r], d_out };
            (active().rms_norm_backward)(row, d_x, part);
        }
    });
    for part in parts.chunks_exact(hidden) {
        (active().axpy)(1.0, part, d_weight);
    }
}

/// What the forward pass left for the backward pass.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// The input, `[all rows, hidden]`.
    pub x: &'a [f32],
    /// The norm's weight, `[hidden]`.
    pub weight: &'a [f32],
    /// `1 / rms` of each packed row.
    pub inv_rms: &'a [f32],
}

/// Where the weight's gradient is summed.
#[derive(Debug)]
pub struct Sums<'a> {
    /// The gradient, added to.
    pub d_weight: &'a mut [f32],
    /// Room for partial sums, `[PARTS, hidden]`.
    pub parts: &'a mut [f32],
}
