//! Causal attention with grouped heads, in tiles: the `[length, length]` scores are never held.
//!
//! A task is one key head of one sample with the queries that share it. It goes through its queries in tiles of
//! `TILE` positions and computes scores over the keys that the tile sees. The scores are not kept: the backward
//! computes each tile again (as FlashAttention does, Dao 2022).

use super::heads::HeadSizes;
use offramp_kernels::active;
use offramp_kernels::gemm::{Factors, Matrix, MatrixMut, Product, Threads, Write, gemm};
use offramp_kernels::rayon::prelude::*;

/// Query positions that share a tile of scores.
const TILE: usize = 64;

/// Values of scratch that [`forward`] and [`backward`] need for so many samples.
pub(crate) fn scratch_len(samples: usize, sizes: HeadSizes) -> usize {
    samples * sizes.kv_heads * 2 * TILE * sizes.length
}

/// Floating-point operations of one `softmax(q · kᵀ) · v`, without what the mask leaves out.
pub(crate) fn flops(samples: usize, sizes: HeadSizes) -> f64 {
    let pairs = sizes.length as f64 * (sizes.length + 1) as f64 / 2.0;
    4.0 * pairs * (samples * sizes.queries()) as f64
}

/// `out = softmax(q · kᵀ / √head_dim, causal) · v` for every query head.
///
/// # Shapes
/// `grouped`: `[samples, kv_heads, group + 2, length, head_dim]`, `out`: `[samples, heads, length, head_dim]`,
/// `scratch`: at least [`scratch_len`]
pub(crate) fn forward(
    grouped: &[f32],
    sizes: HeadSizes,
    factors: Factors,
    scratch: &mut [f32],
    out: &mut [f32],
) {
    let tasks = grouped.par_chunks(sizes.task()).zip(out.par_chunks_mut(sizes.group * sizes.head()));
    tasks.zip(scratch.par_chunks_mut(2 * TILE * sizes.length)).for_each(|((task, out), scratch)| {
        let Task { queries, keys, values } = Task::of(task, sizes);
        for (query, out) in queries.chunks_exact(sizes.head()).zip(out.chunks_exact_mut(sizes.head())) {
            for tile in Tile::all(sizes, factors) {
                let probabilities = tile.probabilities(query, keys, scratch);
                let out = tile.rows_mut(out);
                let probabilities = Matrix::new(&*probabilities, tile.rows, tile.visible());
                gemm(out, Write::Replace, probabilities, tile.visible_rows(values), tile.plain());
            }
        }
    });
}

/// Overwrites `d_grouped`.
///
/// With P the probabilities of a tile: `d_v += Pᵀ · d_out`, `d_P = d_out · vᵀ`,
/// `d_scores = P · (d_P − Σ_row P · d_P)`, `d_q = d_scores · k / √head_dim`, `d_k += d_scoresᵀ · q / √head_dim`.
///
/// # Shapes
/// As [`forward`]; `d_out`: rows again, `[samples · length, heads · head_dim]`; `d_grouped` like `grouped`.
pub(crate) fn backward(
    grouped: &[f32],
    sizes: HeadSizes,
    factors: Factors,
    d_out: &[f32],
    scratch: &mut [f32],
    d_grouped: &mut [f32],
) {
    let tasks = grouped.par_chunks(sizes.task()).zip(d_grouped.par_chunks_mut(sizes.task())).enumerate();
    tasks.zip(scratch.par_chunks_mut(2 * TILE * sizes.length)).for_each(
        |((index, (task, d_task)), scratch)| {
            let (sample, kv_head) = (index / sizes.kv_heads, index % sizes.kv_heads);
            let d_out = &d_out[sample * sizes.length * sizes.queries()..];
            let Task { queries, keys, values } = Task::of(task, sizes);
            let (d_queries, d_keys_values) = d_task.split_at_mut(sizes.group * sizes.head());
            d_keys_values.fill(0.0);
            for (head, d_query) in d_queries.chunks_exact_mut(sizes.head()).enumerate() {
                let column = (kv_head * sizes.group + head) * sizes.head_dim;
                let d_out = &d_out[column..];
                let head = Head { query: &queries[head * sizes.head()..][..sizes.head()], keys, values };
                let (d_keys, d_values) = d_keys_values.split_at_mut(sizes.head());
                let mut gradients = Gradients { d_query, d_keys, d_values };
                for tile in Tile::all(sizes, factors) {
                    tile.backward(head, d_out, scratch, &mut gradients);
                }
            }
        },
    );
}

/// One task's piece of the grouped layout.
struct Task<'a> {
    queries: &'a [f32], // [group, length, head_dim]
    keys: &'a [f32],    // [length, head_dim]
    values: &'a [f32],  // [length, head_dim]
}

impl<'a> Task<'a> {
    fn of(task: &'a [f32], sizes: HeadSizes) -> Self {
        let (queries, rest) = task.split_at(sizes.group * sizes.head());
        let (keys, values) = rest.split_at(sizes.head());
        Self { queries, keys, values }
    }
}

/// One query head with the keys and values that it reads, `[length, head_dim]` each.
#[derive(Clone, Copy)]
struct Head<'a> {
    query: &'a [f32],
    keys: &'a [f32],
    values: &'a [f32],
}

/// Their gradients. `d_query` is overwritten; the heads of a group add to the others.
struct Gradients<'a> {
    d_query: &'a mut [f32],
    d_keys: &'a mut [f32],
    d_values: &'a mut [f32],
}

/// Some positions of one query head.
#[derive(Clone, Copy)]
struct Tile {
    sizes: HeadSizes,
    factors: Factors,
    first: usize,
    rows: usize,
}

impl Tile {
    fn all(sizes: HeadSizes, factors: Factors) -> impl Iterator<Item = Self> {
        let tile = move |first| Self { sizes, factors, first, rows: TILE.min(sizes.length - first) };
        (0..sizes.length).step_by(TILE).map(tile)
    }

    /// Positions that the tile's last query sees.
    fn visible(&self) -> usize {
        self.first + self.rows
    }

    /// The tile's rows of one head.
    fn rows<'a>(&self, head: &'a [f32]) -> Matrix<'a> {
        Matrix::new(&head[self.first * self.sizes.head_dim..], self.rows, self.sizes.head_dim)
    }

    fn rows_mut<'a>(&self, head: &'a mut [f32]) -> MatrixMut<'a> {
        MatrixMut::new(&mut head[self.first * self.sizes.head_dim..], self.rows, self.sizes.head_dim)
    }

    /// The rows of keys or values that the tile sees.
    fn visible_rows<'a>(&self, head: &'a [f32]) -> Matrix<'a> {
        Matrix::new(head, self.visible(), self.sizes.head_dim)
    }

    fn plain(&self) -> Product {
        Product { alpha: 1.0, factors: self.factors, threads: Threads::One }
    }

    /// As `plain`, divided by `√head_dim`.
    fn scaled(&self) -> Product {
        Product { alpha: 1.0 / (self.sizes.head_dim as f32).sqrt(), ..self.plain() }
    }

    /// `[rows, visible]`, zero beyond the diagonal.
    fn probabilities<'a>(&self, query: &[f32], keys: &[f32], scratch: &'a mut [f32]) -> &'a mut [f32] {
        let visible = self.visible();
        let scores = &mut scratch[..self.rows * visible];
        let out = MatrixMut::new(scores, self.rows, visible);
        gemm(out, Write::Replace, self.rows(query), self.visible_rows(keys).t(), self.scaled());
        for (row, scores) in scores.chunks_exact_mut(visible).enumerate() {
            let (before, after) = scores.split_at_mut(self.first + row + 1);
            (active().softmax)(before);
            after.fill(0.0);
        }
        scores
    }

    /// The backward of one tile of one query head. `d_out` begins at the head's column of the sample's first row.
    fn backward(&self, head: Head<'_>, d_out: &[f32], scratch: &mut [f32], gradients: &mut Gradients<'_>) {
        let Self { sizes, first, rows, .. } = *self;
        let visible = self.visible();
        let Head { query, keys, values } = head;
        let Gradients { d_query, d_keys, d_values } = gradients;
        let (scores, d_scores) = scratch.split_at_mut(TILE * sizes.length);
        let scores = self.probabilities(query, keys, scores);
        let d_scores = &mut d_scores[..rows * visible];

        let d_out = &d_out[first * sizes.queries()..];
        let d_out = Matrix::new(d_out, rows, sizes.head_dim).with_row_stride(sizes.queries());
        let probabilities = Matrix::new(&*scores, rows, visible);
        let d_values = MatrixMut::new(d_values, visible, sizes.head_dim);
        gemm(d_values, Write::Add, probabilities.t(), d_out, self.plain());
        let out = MatrixMut::new(d_scores, rows, visible);
        gemm(out, Write::Replace, d_out, self.visible_rows(values).t(), self.plain());
        let pairs = scores.chunks_exact(visible).zip(d_scores.chunks_exact_mut(visible));
        for (row, (probabilities, d_scores)) in pairs.enumerate() {
            let (before, after) = d_scores.split_at_mut(first + row + 1);
            (active().softmax_backward)(&probabilities[..before.len()], before);
            after.fill(0.0);
        }

        let d_scores = Matrix::new(&*d_scores, rows, visible);
        let d_keys = MatrixMut::new(d_keys, visible, sizes.head_dim);
        gemm(self.rows_mut(d_query), Write::Replace, d_scores, self.visible_rows(keys), self.scaled());
        gemm(d_keys, Write::Add, d_scores.t(), self.rows(query), self.scaled());
    }
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    fn attended(grouped: &[f32], samples: usize, sizes: HeadSizes) -> Vec<f32> {
        let mut out = vec![f32::NAN; samples * sizes.length * sizes.queries()];
        let mut scratch = vec![f32::NAN; scratch_len(samples, sizes)];
        forward(grouped, sizes, Factors::F32, &mut scratch, &mut out);
        out
    }

    fn merged(heads: &[f32], sizes: HeadSizes) -> Vec<f32> {
        let mut rows = vec![f32::NAN; heads.len()];
        super::super::heads::merge(heads, sizes, &mut rows);
        rows
    }

    #[test]
    fn it_is_softmax_over_what_came_before() {
        let sizes = HeadSizes { kv_heads: 1, group: 2, head_dim: 3, length: TILE + 5 };
        let grouped = numbers(sizes.task(), 1);
        let out = attended(&grouped, 1, sizes);
        let at = |head: usize, position: usize| &grouped[head * sizes.head() + position * 3..][..3];
        for (head, position) in [(0, 0), (1, 7), (0, TILE - 1), (1, TILE), (0, TILE + 4)] {
            let score = |key: usize| (weigh(at(head, position), at(2, key)) / 3f64.sqrt()).exp();
            let total: f64 = (0..=position).map(score).sum();
            for element in 0..3 {
                let expected: f64 =
                    (0..=position).map(|key| score(key) * f64::from(at(3, key)[element])).sum::<f64>()
                        / total;
                let found = f64::from(out[head * sizes.head() + position * 3 + element]);
                assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        for (samples, length) in [(2, 5), (1, TILE + 3)] {
            let sizes = HeadSizes { kv_heads: 2, group: 3, head_dim: 2, length };
            let grouped = numbers(samples * sizes.kv_heads * sizes.task(), 1);
            let d_out = numbers(samples * length * sizes.queries(), 2);
            let mut d_grouped = vec![f32::NAN; grouped.len()];
            let mut scratch = vec![f32::NAN; scratch_len(samples, sizes)];
            backward(&grouped, sizes, Factors::F32, &d_out, &mut scratch, &mut d_grouped);
            assert_gradient("grouped", &grouped, &d_grouped, |grouped| {
                weigh(&merged(&attended(grouped, samples, sizes), sizes), &d_out)
            });
        }
    }
}
