//! Causal attention with grouped heads, in tiles: the `[length, length]` scores are never held.
//!
//! A task is one key head of one sample with the queries that share it. It goes through its queries in tiles
//! of `TILE` positions and computes scores over the keys that the tile sees. The scores are not kept: the
//! backward computes each tile again (as FlashAttention does, Dao 2022).

use super::heads::HeadSizes;
use offramp_kernels::active;
use offramp_kernels::gemm::{Factors, Matrix, MatrixMut, Product, Threads, Write, gemm};
use offramp_kernels::rayon::prelude::*;
use std::ops::Range;

/// Query positions that share a tile of scores.
const TILE: usize = 64;

/// What attention computes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attention {
    pub(crate) sizes: HeadSizes,
    /// How many tokens a token sees, itself among them; none: all so far.
    pub(crate) window: Option<usize>,
    pub(crate) factors: Factors,
}

impl Attention {
    /// The first position that the token at `position` sees.
    fn first_visible(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

/// Values of scratch that [`forward`] and [`backward`] need for so many samples.
pub(crate) fn scratch_len(samples: usize, sizes: HeadSizes) -> usize {
    samples * sizes.kv_heads * 2 * TILE * sizes.length
}

/// Floating-point operations of one `softmax(q · kᵀ) · v`, without what the mask leaves out.
pub(crate) fn flops(samples: usize, attention: Attention) -> f64 {
    let Attention { sizes, window, .. } = attention;
    let window = window.unwrap_or(sizes.length).min(sizes.length) as f64;
    let pairs = window * (window + 1.0) / 2.0 + (sizes.length as f64 - window) * window;
    4.0 * pairs * (samples * sizes.queries()) as f64
}

/// `out = softmax(q · kᵀ / √head_dim, causal) · v` for every query head.
///
/// # Shapes
/// `grouped`: `[samples, kv_heads, group + 2, length, head_dim]`, `out`: `[samples, heads, length,
/// head_dim]`, `scratch`: at least [`scratch_len`]
pub(crate) fn forward(grouped: &[f32], attention: Attention, scratch: &mut [f32], out: &mut [f32]) {
    let sizes = attention.sizes;
    let tasks = grouped.par_chunks(sizes.task()).zip(out.par_chunks_mut(sizes.group * sizes.head()));
    tasks.zip(scratch.par_chunks_mut(2 * TILE * sizes.length)).for_each(|((task, out), scratch)| {
        let Task { queries, keys, values } = Task::of(task, sizes);
        for (query, out) in queries.chunks_exact(sizes.head()).zip(out.chunks_exact_mut(sizes.head())) {
            for tile in Tile::all(attention) {
                let probabilities = tile.probabilities(query, keys, scratch);
                let out = tile.rows_mut(out);
                let probabilities = Matrix::new(&*probabilities, tile.rows, tile.columns());
                gemm(out, Write::Replace, probabilities, tile.visible_rows(values), tile.plain());
            }
        }
    });
}

/// Overwrites `d_grouped`.
///
/// With P the probabilities of a tile:
/// `d_v += Pᵀ · d_out`, `d_P = d_out · vᵀ`, `d_scores = P · (d_P − Σ_row P · d_P)`,
/// `d_q = d_scores · k / √head_dim`, `d_k += d_scoresᵀ · q / √head_dim`.
///
/// # Shapes
/// As [`forward`]; `d_out`: rows again, `[samples · length, heads · head_dim]`; `d_grouped` like `grouped`.
pub(crate) fn backward(
    grouped: &[f32],
    attention: Attention,
    d_out: &[f32],
    scratch: &mut [f32],
    d_grouped: &mut [f32],
) {
    let sizes = attention.sizes;
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
                for tile in Tile::all(attention) {
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
    attention: Attention,
    first: usize, // the first position
    rows: usize,  // positions
    from: usize,  // the first position that any of them sees
}

impl Tile {
    fn all(attention: Attention) -> impl Iterator<Item = Self> {
        let length = attention.sizes.length;
        let tile = move |first| {
            let rows = TILE.min(length - first);
            Self { attention, first, rows, from: attention.first_visible(first) }
        };
        (0..length).step_by(TILE).map(tile)
    }

    /// Positions that any of the tile's queries sees.
    fn columns(&self) -> usize {
        self.first + self.rows - self.from
    }

    /// The columns that row `row` sees.
    fn visible(&self, row: usize) -> Range<usize> {
        let position = self.first + row;
        self.attention.first_visible(position) - self.from..position + 1 - self.from
    }

    fn head_dim(&self) -> usize {
        self.attention.sizes.head_dim
    }

    /// The tile's rows of one head.
    fn rows<'a>(&self, head: &'a [f32]) -> Matrix<'a> {
        Matrix::new(&head[self.first * self.head_dim()..], self.rows, self.head_dim())
    }

    fn rows_mut<'a>(&self, head: &'a mut [f32]) -> MatrixMut<'a> {
        MatrixMut::new(&mut head[self.first * self.head_dim()..], self.rows, self.head_dim())
    }

    /// The rows of keys or values that the tile sees.
    fn visible_rows<'a>(&self, head: &'a [f32]) -> Matrix<'a> {
        Matrix::new(&head[self.from * self.head_dim()..], self.columns(), self.head_dim())
    }

    fn visible_rows_mut<'a>(&self, head: &'a mut [f32]) -> MatrixMut<'a> {
        MatrixMut::new(&mut head[self.from * self.head_dim()..], self.columns(), self.head_dim())
    }

    fn plain(&self) -> Product {
        Product { alpha: 1.0, factors: self.attention.factors, threads: Threads::One }
    }

    /// As `plain`, divided by `√head_dim`.
    fn scaled(&self) -> Product {
        Product { alpha: 1.0 / (self.head_dim() as f32).sqrt(), ..self.plain() }
    }

    /// `[rows, columns]`, zero where a row does not see.
    fn probabilities<'a>(&self, query: &[f32], keys: &[f32], scratch: &'a mut [f32]) -> &'a mut [f32] {
        let columns = self.columns();
        let scores = &mut scratch[..self.rows * columns];
        let out = MatrixMut::new(scores, self.rows, columns);
        gemm(out, Write::Replace, self.rows(query), self.visible_rows(keys).t(), self.scaled());
        for (row, scores) in scores.chunks_exact_mut(columns).enumerate() {
            (active().softmax)(self.mask(row, scores));
        }
        scores
    }

    /// Sets to zero what a row does not see, and returns the rest.
    fn mask<'a>(&self, row: usize, scores: &'a mut [f32]) -> &'a mut [f32] {
        let Range { start, end } = self.visible(row);
        scores[..start].fill(0.0);
        scores[end..].fill(0.0);
        &mut scores[start..end]
    }

    /// The backward of one tile of one query head. `d_out` begins at the head's column of the sample's first
    /// row.
    fn backward(&self, head: Head<'_>, d_out: &[f32], scratch: &mut [f32], gradients: &mut Gradients<'_>) {
        let Self { attention: Attention { sizes, .. }, first, rows, .. } = *self;
        let columns = self.columns();
        let Head { query, keys, values } = head;
        let Gradients { d_query, d_keys, d_values } = gradients;
        let (scores, d_scores) = scratch.split_at_mut(TILE * sizes.length);
        let scores = self.probabilities(query, keys, scores);
        let d_scores = &mut d_scores[..rows * columns];

        let d_out = &d_out[first * sizes.queries()..];
        let d_out = Matrix::new(d_out, rows, sizes.head_dim).with_row_stride(sizes.queries());
        let probabilities = Matrix::new(&*scores, rows, columns);
        gemm(self.visible_rows_mut(d_values), Write::Add, probabilities.t(), d_out, self.plain());
        let out = MatrixMut::new(d_scores, rows, columns);
        gemm(out, Write::Replace, d_out, self.visible_rows(values).t(), self.plain());
        let pairs = scores.chunks_exact(columns).zip(d_scores.chunks_exact_mut(columns));
        for (row, (probabilities, d_scores)) in pairs.enumerate() {
            let probabilities = &probabilities[self.visible(row)];
            (active().softmax_backward)(probabilities, self.mask(row, d_scores));
        }

        let d_scores = Matrix::new(&*d_scores, rows, columns);
        gemm(self.rows_mut(d_query), Write::Replace, d_scores, self.visible_rows(keys), self.scaled());
        gemm(self.visible_rows_mut(d_keys), Write::Add, d_scores.t(), self.rows(query), self.scaled());
    }
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    fn attention(sizes: HeadSizes, window: Option<usize>) -> Attention {
        Attention { sizes, window, factors: Factors::F32 }
    }

    fn attended(grouped: &[f32], samples: usize, attention: Attention) -> Vec<f32> {
        let sizes = attention.sizes;
        let mut out = vec![f32::NAN; samples * sizes.length * sizes.queries()];
        let mut scratch = vec![f32::NAN; scratch_len(samples, sizes)];
        forward(grouped, attention, &mut scratch, &mut out);
        out
    }

    fn merged(heads: &[f32], sizes: HeadSizes) -> Vec<f32> {
        let mut rows = vec![f32::NAN; heads.len()];
        super::super::heads::merge(heads, sizes, &mut rows);
        rows
    }

    #[test]
    fn it_is_softmax_over_what_a_token_sees() {
        let sizes = HeadSizes { kv_heads: 1, group: 2, head_dim: 3, length: 2 * TILE + 5 };
        let grouped = numbers(sizes.task(), 1);
        for window in [None, Some(1), Some(7), Some(TILE), Some(TILE + 9), Some(1000)] {
            let out = attended(&grouped, 1, attention(sizes, window));
            let at = |head: usize, position: usize| &grouped[head * sizes.head() + position * 3..][..3];
            for (head, position) in
                [(0, 0), (1, 7), (0, TILE - 1), (1, TILE), (0, TILE + 4), (1, 2 * TILE + 1)]
            {
                let score = |key: usize| (weigh(at(head, position), at(2, key)) / 3f64.sqrt()).exp();
                let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
                let seen = || first..=position;
                let total: f64 = seen().map(score).sum();
                for element in 0..3 {
                    let expected: f64 =
                        seen().map(|key| score(key) * f64::from(at(3, key)[element])).sum::<f64>() / total;
                    let found = f64::from(out[head * sizes.head() + position * 3 + element]);
                    assert!((found - expected).abs() < 1e-6, "{window:?}: {found} instead of {expected}");
                }
            }
        }
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        for (samples, length, window) in [
            (2, 5, None),
            (1, TILE + 3, None),
            (2, 5, Some(2)),
            (1, TILE + 3, Some(9)),
            (1, TILE + 3, Some(TILE + 1)),
        ] {
            let sizes = HeadSizes { kv_heads: 2, group: 3, head_dim: 2, length };
            let grouped = numbers(samples * sizes.kv_heads * sizes.task(), 1);
            let d_out = numbers(samples * length * sizes.queries(), 2);
            let mut d_grouped = vec![f32::NAN; grouped.len()];
            let mut scratch = vec![f32::NAN; scratch_len(samples, sizes)];
            let attention = attention(sizes, window);
            backward(&grouped, attention, &d_out, &mut scratch, &mut d_grouped);
            assert_gradient("grouped", &grouped, &d_grouped, |grouped| {
                weigh(&merged(&attended(grouped, samples, attention), sizes), &d_out)
            });
        }
    }
}
