//! Rows of the q, k and v projections become heads, rotated by their positions, and the other way round.
//!
//! The grouped layout keeps together what one attention task reads: for each sample and each key head its
//! queries, its keys and its values, `[samples, kv_heads, group + 2, length, head_dim]` with `group = heads /
//! kv_heads`. A row of the projections is `[heads + 2 · kv_heads, head_dim]`: all queries, all keys, all
//! values, because the three weights stand one after the other.

use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// Sizes of attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadSizes {
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Query heads that share one of them.
    pub(crate) group: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Tokens of one sample.
    pub(crate) length: usize,
}

impl HeadSizes {
    /// Values of one head of one sample.
    pub(crate) fn head(&self) -> usize {
        self.length * self.head_dim
    }

    /// Values of one key head's piece of the grouped layout.
    pub(crate) fn task(&self) -> usize {
        (self.group + 2) * self.head()
    }

    /// Values of one token's queries, which is also the width of the attention's output.
    pub(crate) fn queries(&self) -> usize {
        self.kv_heads * self.group * self.head_dim
    }

    /// Values of one row of the projections.
    pub(crate) fn row(&self) -> usize {
        self.kv_heads * (self.group + 2) * self.head_dim
    }

    /// Query and key heads of one token: those that are normed, where heads are normed.
    pub(crate) fn normed(&self) -> usize {
        self.kv_heads * (self.group + 1)
    }

    /// The column of a row of the projections at which head `index` of key head `kv_head`'s piece stands.
    fn column(&self, kv_head: usize, index: usize) -> usize {
        let heads = self.kv_heads * self.group;
        let head = match index {
            query if query < self.group => kv_head * self.group + query,
            key if key == self.group => heads + kv_head,
            _ => heads + self.kv_heads + kv_head,
        };
        head * self.head_dim
    }
}

/// Cosines and sines of every position, `[length, head_dim / 2]` each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotary<'a> {
    pub(crate) cos: &'a [f32],
    pub(crate) sin: &'a [f32],
}

impl Rotary<'_> {
    fn rotate(&self, head: &mut [f32], position: usize) {
        let half = head.len() / 2;
        let angles = position * half..(position + 1) * half;
        (active().rope)(head, &self.cos[angles.clone()], &self.sin[angles]);
    }
}

/// Writes `grouped` from the rows of the projections. Queries and keys are rotated, if there is a `rotary`.
///
/// # Shapes
/// `rows`: `[samples · length, row()]`, `grouped`: `[samples, kv_heads, group + 2, length, head_dim]`
pub(crate) fn forward(rows: &[f32], sizes: HeadSizes, rotary: Option<Rotary<'_>>, grouped: &mut [f32]) {
    assert_eq!(rows.len(), grouped.len(), "the same heads in another order");
    let HeadSizes { head_dim, length, .. } = sizes;
    grouped.par_chunks_mut(sizes.head()).enumerate().for_each(|(chunk, head)| {
        let pieces = sizes.group + 2;
        let (sample, kv_head, index) =
            (chunk / pieces / sizes.kv_heads, chunk / pieces % sizes.kv_heads, chunk % pieces);
        let column = sizes.column(kv_head, index);
        for (position, out) in head.chunks_exact_mut(head_dim).enumerate() {
            let row = sample * length + position;
            out.copy_from_slice(&rows[row * sizes.row() + column..][..head_dim]);
            if let Some(rotary) = rotary.filter(|_| index <= sizes.group) {
                rotary.rotate(out, position);
            }
        }
    });
}

/// Overwrites `d_rows` from the gradients of `grouped`. `inverse` has the sines negated: it rotates back.
///
/// # Shapes
/// As [`forward`].
pub(crate) fn backward(d_grouped: &[f32], sizes: HeadSizes, inverse: Option<Rotary<'_>>, d_rows: &mut [f32]) {
    assert_eq!(d_rows.len(), d_grouped.len(), "the same heads in another order");
    let HeadSizes { head_dim, length, .. } = sizes;
    d_rows.par_chunks_mut(sizes.row()).enumerate().for_each(|(row, d_row)| {
        let (sample, position) = (row / length, row % length);
        for kv_head in 0..sizes.kv_heads {
            let task = &d_grouped[(sample * sizes.kv_heads + kv_head) * sizes.task()..][..sizes.task()];
            for index in 0..sizes.group + 2 {
                let head = &mut d_row[sizes.column(kv_head, index)..][..head_dim];
                head.copy_from_slice(&task[(index * length + position) * head_dim..][..head_dim]);
                if let Some(inverse) = inverse.filter(|_| index <= sizes.group) {
                    inverse.rotate(head, position);
                }
            }
        }
    });
}

/// Writes the output of attention as rows of tokens.
///
/// # Shapes
/// `heads`: `[samples, heads, length, head_dim]`, `rows`: `[samples · length, heads · head_dim]`
pub(crate) fn merge(heads: &[f32], sizes: HeadSizes, rows: &mut [f32]) {
    assert_eq!(heads.len(), rows.len(), "the same heads in another order");
    let HeadSizes { head_dim, length, .. } = sizes;
    rows.par_chunks_mut(sizes.queries()).enumerate().for_each(|(row, out)| {
        let (sample, position) = (row / length, row % length);
        let sample = &heads[sample * length * sizes.queries()..];
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            out.copy_from_slice(&sample[(head * length + position) * head_dim..][..head_dim]);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    const SIZES: HeadSizes = HeadSizes { kv_heads: 2, group: 3, head_dim: 4, length: 5 };

    fn angles() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let angle: Vec<f32> = (0..SIZES.head() / 2).map(|i| 0.3 * i as f32).collect();
        let sin: Vec<f32> = angle.iter().map(|a| a.sin()).collect();
        (angle.iter().map(|a| a.cos()).collect(), sin.iter().map(|s| -s).collect(), sin)
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        let len = 2 * SIZES.length * SIZES.row();
        let (rows, d_grouped) = (numbers(len, 1), numbers(len, 2));
        let (cos, minus_sin, sin) = angles();
        for rotates in [true, false] {
            let rotary = |sin| rotates.then_some(Rotary { cos: &cos, sin });
            let mut d_rows = vec![f32::NAN; len];
            backward(&d_grouped, SIZES, rotary(&minus_sin), &mut d_rows);
            assert_gradient("rows", &rows, &d_rows, |rows| {
                let mut grouped = vec![f32::NAN; len];
                forward(rows, SIZES, rotary(&sin), &mut grouped);
                weigh(&grouped, &d_grouped)
            });
        }
    }

    /// `o_proj` expects the heads in the order of the queries.
    #[test]
    fn merging_restores_the_order_of_the_queries() {
        let samples = 2;
        let rows = numbers(samples * SIZES.length * SIZES.row(), 1);
        let mut grouped = vec![f32::NAN; rows.len()];
        forward(&rows, SIZES, None, &mut grouped);
        let queries: Vec<f32> = grouped
            .chunks_exact(SIZES.task())
            .flat_map(|task| task[..SIZES.group * SIZES.head()].to_vec())
            .collect();
        let mut merged = vec![f32::NAN; queries.len()];
        merge(&queries, SIZES, &mut merged);
        let expected: Vec<f32> =
            rows.chunks_exact(SIZES.row()).flat_map(|row| row[..SIZES.queries()].to_vec()).collect();
        assert_eq!(merged, expected);
    }
}
