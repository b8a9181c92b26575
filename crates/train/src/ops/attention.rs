//! Causal attention with grouped heads, a tile of queries at a time.
//!
//! For each tile the scores against the keys that it sees are one small product, the softmax runs in
//! place, and a second product mixes the values. Nothing of size sequence² is kept: the backward pass
//! computes the tile's probabilities again. One task is one sample's key head with the query heads
//! that share it, so no two tasks write the same gradient.

use offramp_kernels::active;
use offramp_kernels::gemm::{Matrix, MatrixMut, Threads, Write, gemm};
use offramp_kernels::rayon::prelude::*;

/// Queries of a tile.
const TILE: usize = 64;

/// Sizes of one attention.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens of a sample.
    pub sequence: usize,
    /// Query heads that share one key head.
    pub group: usize,
    /// Width of a head.
    pub head_dim: usize,
}

impl Shape {
    /// Floats of working room that each task, a sample's key head, needs.
    pub fn scratch(&self) -> usize {
        2 * TILE * self.sequence
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn keys(&self) -> usize {
        self.sequence * self.head_dim
    }

    /// First query and number of queries of each tile.
    fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let sequence = self.sequence;
        (0..sequence).step_by(TILE).map(move |first| (first, TILE.min(sequence - first)))
    }
}

/// Queries, keys and values by head, rotated.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// `[samples, heads, sequence, head_dim]`
    pub queries: &'a [f32],
    /// `[samples, kv_heads, sequence, head_dim]`
    pub keys: &'a [f32],
    /// `[samples, kv_heads, sequence, head_dim]`
    pub values: &'a [f32],
}

/// `out = softmax(causal(q·kᵀ / √head_dim))·v`.
///
/// # Shapes
/// `out`: as the queries, `scratch`: `[samples · kv_heads, Shape::scratch]`
pub fn forward(shape: Shape, inputs: Inputs<'_>, out: &mut [f32], scratch: &mut [f32]) {
    let (keys, queries) = (shape.keys(), shape.group * shape.keys());
    let tasks = out.par_chunks_mut(queries).zip(scratch.par_chunks_mut(shape.scratch())).enumerate();
    tasks.for_each(|(task, (out, scratch))| {
        let head = Inputs {
            queries: &inputs.queries[task * queries..][..queries],
            keys: &inputs.keys[task * keys..][..keys],
            values: &inputs.values[task * keys..][..keys],
        };
        for query_head in 0..shape.group {
            let range = query_head * keys..(query_head + 1) * keys;
            for (first, rows) in shape.tiles() {
                let (seen, dim) = (first + rows, shape.head_dim);
                let queries = &head.queries[range.clone()][first * dim..];
                let scores = probabilities(shape, queries, head.keys, (first, rows), scratch);
                let values = Matrix::new(head.values, seen, dim);
                let out = MatrixMut::new(&mut out[range.clone()][first * dim..], rows, dim);
                gemm(out, Write::Replace, 1.0, Matrix::new(scores, rows, seen), values, Threads::One);
            }
        }
    });
}

/// A tile's attention probabilities `[rows, seen]`, at the start of `scratch`.
fn probabilities<'s>(
    shape: Shape,
    queries: &[f32],
    keys: &[f32],
    (first, rows): (usize, usize),
    scratch: &'s mut [f32],
) -> &'s [f32] {
    let (seen, dim) = (first + rows, shape.head_dim);
    let scores = &mut scratch[..rows * seen];
    let (queries, keys) = (Matrix::new(queries, rows, dim), Matrix::new(keys, seen, dim));
    gemm(MatrixMut::new(scores, rows, seen), Write::Replace, shape.scale(), queries, keys.t(), Threads::One);
    for (row, scores) in scores.chunks_exact_mut(seen).enumerate() {
        let (visible, hidden) = scores.split_at_mut(first + row + 1);
        (active().softmax)(visible);
        hidden.fill(0.0);
    }
    scores
}

/// Gradients of queries, keys and values, each overwritten.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// As the queries.
    pub d_queries: &'a mut [f32],
    /// As the keys.
    pub d_keys: &'a mut [f32],
    /// As the values.
    pub d_values: &'a mut [f32],
}

/// What came out, and the gradient that came back; both as the queries.
#[derive(Clone, Copy, Debug)]
pub struct Outputs<'a> {
    /// What [`forward`] wrote.
    pub out: &'a [f32],
    /// Its gradient.
    pub d_out: &'a [f32],
}

/// The gradients of [`forward`]: with `P` the probabilities, `dV = Pᵀ·dO`, `dP = dO·Vᵀ`,
/// `dS = P ∘ (dP − rowsum(dO ∘ O))`, `dQ = dS·K / √head_dim`, `dK = dSᵀ·Q / √head_dim`.
pub fn backward(
    shape: Shape,
    inputs: Inputs<'_>,
    outputs: Outputs<'_>,
    gradients: Gradients<'_>,
    scratch: &mut [f32],
) {
    let (keys, queries) = (shape.keys(), shape.group * shape.keys());
    let by_keys = gradients.d_keys.par_chunks_mut(keys).zip(gradients.d_values.par_chunks_mut(keys));
    let rooms = scratch.par_chunks_mut(shape.scratch());
    let tasks = gradients.d_queries.par_chunks_mut(queries).zip(by_keys).zip(rooms).enumerate();
    tasks.for_each(|(task, ((d_queries, (d_keys, d_values)), scratch))| {
        let (many, few) = (task * queries..(task + 1) * queries, task * keys..(task + 1) * keys);
        let inputs = Inputs {
            queries: &inputs.queries[many.clone()],
            keys: &inputs.keys[few.clone()],
            values: &inputs.values[few],
        };
        let outputs = Outputs { out: &outputs.out[many.clone()], d_out: &outputs.d_out[many] };
        d_keys.fill(0.0);
        d_values.fill(0.0);
        key_head(shape, inputs, outputs, Gradients { d_queries, d_keys, d_values }, scratch);
    });
}

/// One sample's key head and its group.
fn key_head(shape: Shape, inputs: Inputs<'_>, outputs: Outputs<'_>, to: Gradients<'_>, scratch: &mut [f32]) {
    let (dim, scale) = (shape.head_dim, shape.scale());
    let (scores, d_scores) = scratch.split_at_mut(TILE * shape.sequence);
    for query_head in 0..shape.group {
        for (first, rows) in shape.tiles() {
            let seen = first + rows;
            let tile = query_head * shape.keys() + first * dim..query_head * shape.keys() + seen * dim;
            let (queries, d_out) = (&inputs.queries[tile.clone()], &outputs.d_out[tile.clone()]);
            let p = probabilities(shape, queries, inputs.keys, (first, rows), scores);
            let d_out_matrix = Matrix::new(d_out, rows, dim);

            let d_values = MatrixMut::new(to.d_values, seen, dim);
            gemm(d_values, Write::Add, 1.0, Matrix::new(p, rows, seen).t(), d_out_matrix, Threads::One);

            let d_p = MatrixMut::new(d_scores, rows, seen);
            let values = Matrix::new(inputs.values, seen, dim);
            gemm(d_p, Write::Replace, 1.0, d_out_matrix, values.t(), Threads::One);
            let out = &outputs.out[tile.clone()];
            for row in 0..rows {
                let here = row * dim..(row + 1) * dim;
                let along = (active().dot)(&out[here.clone()], &d_out[here]);
                let row = row * seen..(row + 1) * seen;
                for (d, p) in d_scores[row.clone()].iter_mut().zip(&p[row]) {
                    *d = p * (*d - along);
                }
            }

            let d_s = Matrix::new(d_scores, rows, seen);
            let d_queries = MatrixMut::new(&mut to.d_queries[tile], rows, dim);
            gemm(d_queries, Write::Replace, scale, d_s, Matrix::new(inputs.keys, seen, dim), Threads::One);
            let d_keys = MatrixMut::new(to.d_keys, seen, dim);
            gemm(d_keys, Write::Add, scale, d_s.t(), Matrix::new(queries, rows, dim), Threads::One);
        }
    }
}
