//! Rows of projections become heads, turned to their positions, and back.
//!
//! The grouped layout puts everything that one attention task touches in one piece: for each sample and
//! each key head its queries, its keys, its values, `[samples, kv_heads, group + 2, length, head_dim]`
//! with `group = heads / kv_heads`. Rows of the projections are `[heads + 2 · kv_heads, head_dim]`: all
//! queries, all keys, all values, as the three weights stand one after the other.

use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// Sizes of attention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadShape {
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Query heads that share one of them.
    pub(crate) group: usize,
    /// Width of a head.
    pub(crate) head_dim: usize,
    /// Tokens of one sample.
    pub(crate) length: usize,
}

impl HeadShape {
    /// Floats of one head of one sample.
    pub(crate) fn head(&self) -> usize {
        self.length * self.head_dim
    }

    /// Floats of one key head's piece of the grouped layout.
    pub(crate) fn task(&self) -> usize {
        (self.group + 2) * self.head()
    }

    /// Floats of one token's queries, which is also the width of the attention's output.
    pub(crate) fn queries(&self) -> usize {
        self.kv_heads * self.group * self.head_dim
    }

    /// Floats of one row of the projections.
    pub(crate) fn row(&self) -> usize {
        self.kv_heads * (self.group + 2) * self.head_dim
    }

    /// Where head `index` of key head `kv_head`'s piece stands in a row of the projections.
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
    fn turn(&self, head: &mut [f32], position: usize) {
        let half = head.len() / 2;
        let angles = position * half..(position + 1) * half;
        (active().rope)(head, &self.cos[angles.clone()], &self.sin[angles]);
    }
}

/// Writes `grouped` from the rows of the projections, queries and keys turned.
///
/// # Shapes
/// `rows`: `[samples · length, row()]`, `grouped`: `[samples, kv_heads, group + 2, length, head_dim]`
pub(crate) fn forward(rows: &[f32], shape: HeadShape, rotary: Rotary<'_>, grouped: &mut [f32]) {
    assert_eq!(rows.len(), grouped.len(), "the same heads in another order");
    let HeadShape { head_dim, length, .. } = shape;
    grouped.par_chunks_mut(shape.head()).enumerate().for_each(|(chunk, head)| {
        let (sample, kv_head, index) = place(chunk, shape.kv_heads, shape.group + 2);
        let column = shape.column(kv_head, index);
        for (position, out) in head.chunks_exact_mut(head_dim).enumerate() {
            let row = sample * length + position;
            out.copy_from_slice(&rows[row * shape.row() + column..][..head_dim]);
            if index <= shape.group {
                rotary.turn(out, position);
            }
        }
    });
}

/// Overwrites `d_rows` from the gradients of `grouped`; `inverse` turns back (its sines are negated).
///
/// # Shapes
/// As [`forward`].
pub(crate) fn backward(d_grouped: &[f32], shape: HeadShape, inverse: Rotary<'_>, d_rows: &mut [f32]) {
    assert_eq!(d_rows.len(), d_grouped.len(), "the same heads in another order");
    let HeadShape { head_dim, length, .. } = shape;
    d_rows.par_chunks_mut(shape.row()).enumerate().for_each(|(row, d_row)| {
        let (sample, position) = (row / length, row % length);
        for kv_head in 0..shape.kv_heads {
            let task = &d_grouped[(sample * shape.kv_heads + kv_head) * shape.task()..][..shape.task()];
            for index in 0..shape.group + 2 {
                let head = &mut d_row[shape.column(kv_head, index)..][..head_dim];
                head.copy_from_slice(&task[(index * length + position) * head_dim..][..head_dim]);
                if index <= shape.group {
                    inverse.turn(head, position);
                }
            }
        }
    });
}

/// Writes what the heads attended to as rows again.
///
/// # Shapes
/// `heads`: `[samples, heads, length, head_dim]`, `rows`: `[samples · length, heads · head_dim]`
pub(crate) fn merge(heads: &[f32], shape: HeadShape, rows: &mut [f32]) {
    assert_eq!(heads.len(), rows.len(), "the same heads in another order");
    let HeadShape { head_dim, length, .. } = shape;
    rows.par_chunks_mut(shape.queries()).enumerate().for_each(|(row, out)| {
        let (sample, position) = (row / length, row % length);
        let sample = &heads[sample * length * shape.queries()..];
        for (head, out) in out.chunks_exact_mut(head_dim).enumerate() {
            out.copy_from_slice(&sample[(head * length + position) * head_dim..][..head_dim]);
        }
    });
}

/// `(sample, kv_head, index)` of a chunk of the grouped layout.
fn place(chunk: usize, kv_heads: usize, pieces: usize) -> (usize, usize, usize) {
    (chunk / pieces / kv_heads, chunk / pieces % kv_heads, chunk % pieces)
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    const SHAPE: HeadShape = HeadShape { kv_heads: 2, group: 3, head_dim: 4, length: 5 };

    fn angles() -> (Vec<f32>, Vec<f32>, Vec<f32>) {
        let angle: Vec<f32> = (0..SHAPE.head() / 2).map(|i| 0.3 * i as f32).collect();
        let sin: Vec<f32> = angle.iter().map(|a| a.sin()).collect();
        (angle.iter().map(|a| a.cos()).collect(), sin.iter().map(|s| -s).collect(), sin)
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        let len = 2 * SHAPE.length * SHAPE.row();
        let (rows, d_grouped) = (numbers(len, 1), numbers(len, 2));
        let (cos, minus_sin, sin) = angles();
        let mut d_rows = vec![f32::NAN; len];
        backward(&d_grouped, SHAPE, Rotary { cos: &cos, sin: &minus_sin }, &mut d_rows);
        assert_gradient("rows", &rows, &d_rows, |rows| {
            let mut grouped = vec![f32::NAN; len];
            forward(rows, SHAPE, Rotary { cos: &cos, sin: &sin }, &mut grouped);
            weigh(&grouped, &d_grouped)
        });
    }

    /// A head's number is its place among the queries, as `o_proj` expects it.
    #[test]
    fn merging_puts_queries_back_where_they_came_from() {
        let samples = 2;
        let rows = numbers(samples * SHAPE.length * SHAPE.row(), 1);
        let ones = vec![1.0; SHAPE.head() / 2];
        let zeros = vec![0.0; SHAPE.head() / 2];
        let mut grouped = vec![f32::NAN; rows.len()];
        forward(&rows, SHAPE, Rotary { cos: &ones, sin: &zeros }, &mut grouped);
        let queries: Vec<f32> = grouped
            .chunks_exact(SHAPE.task())
            .flat_map(|task| task[..SHAPE.group * SHAPE.head()].to_vec())
            .collect();
        let mut merged = vec![f32::NAN; queries.len()];
        merge(&queries, SHAPE, &mut merged);
        let expected: Vec<f32> =
            rows.chunks_exact(SHAPE.row()).flat_map(|row| row[..SHAPE.queries()].to_vec()).collect();
        assert_eq!(merged, expected);
    }
}
