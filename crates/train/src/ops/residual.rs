//! The residual stream: a branch (attention or feed-forward) adds to it, for the kept samples.

use super::{BLOCK, Kept};
use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// `out = x[kept] + branch`, between attention and feed-forward.
///
/// # Shapes
/// `x`: `[all rows, hidden]`, `branch`, `out`: `[kept rows, hidden]`
pub(crate) fn gather(x: &[f32], kept: Kept<'_>, hidden: usize, branch: &[f32], out: &mut [f32]) {
    let blocks = out.par_chunks_mut(BLOCK * hidden).zip(branch.par_chunks(BLOCK * hidden)).enumerate();
    blocks.for_each(|(block, (out, branch))| {
        for (i, (out, branch)) in out.chunks_exact_mut(hidden).zip(branch.chunks_exact(hidden)).enumerate() {
            let source = kept.source(block * BLOCK + i);
            out.copy_from_slice(&x[source * hidden..][..hidden]);
            (active().axpy)(1.0, branch, out);
        }
    });
}

/// The output of a layer for the kept samples: `middle + branch`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayerOutput<'a> {
    /// The stream between attention and feed-forward, `[kept rows, hidden]`.
    pub(crate) middle: &'a [f32],
    /// What feed-forward adds, `[kept rows, hidden]`.
    pub(crate) branch: &'a [f32],
    /// Everything that the layer adds to its input is multiplied by this.
    pub(crate) scale: f32,
}

/// The layer's exit: `out = x` for dropped samples and `x + scale · (middle + branch − x)` for kept ones.
///
/// With `scale` = 1 a kept row is `middle + branch`, the layer's plain output.
///
/// # Shapes
/// `x`, `out`: `[all rows, hidden]`
pub(crate) fn scatter(x: &[f32], kept: Kept<'_>, hidden: usize, layer: LayerOutput<'_>, out: &mut [f32]) {
    let LayerOutput { middle, branch, scale } = layer;
    let sample = kept.length * hidden;
    let samples = out.par_chunks_mut(sample).zip(x.par_chunks(sample)).enumerate();
    samples.for_each(|(index, (out, x))| match kept.samples.binary_search(&index) {
        Err(_) => out.copy_from_slice(x),
        Ok(compact) => {
            let (middle, branch) =
                (&middle[compact * sample..][..sample], &branch[compact * sample..][..sample]);
            if scale == 1.0 {
                out.iter_mut().zip(middle).zip(branch).for_each(|((out, m), b)| *out = m + b);
            } else {
                let rows = out.iter_mut().zip(x).zip(middle.iter().zip(branch));
                rows.for_each(|((out, x), (m, b))| *out = x + scale * (m + b - x));
            }
        }
    });
}

/// Overwrites `d_branch`, the gradient of both `middle` and `branch`: `scale · d_out[kept]`.
///
/// # Shapes
/// `d_out`: `[all rows, hidden]`, `d_branch`: `[kept rows, hidden]`
pub(crate) fn scatter_backward(
    d_out: &[f32],
    kept: Kept<'_>,
    hidden: usize,
    scale: f32,
    d_branch: &mut [f32],
) {
    d_branch.par_chunks_mut(BLOCK * hidden).enumerate().for_each(|(block, d_branch)| {
        for (i, d_branch) in d_branch.chunks_exact_mut(hidden).enumerate() {
            let d_out = &d_out[kept.source(block * BLOCK + i) * hidden..][..hidden];
            d_branch.iter_mut().zip(d_out).for_each(|(d_branch, d_out)| *d_branch = scale * d_out);
        }
    });
}

/// Replaces the gradient of the layer's output by that of its input: `d[kept] ← (1 − scale) · d + d_x`.
/// Dropped samples keep their gradient.
///
/// # Shapes
/// `d_x`: `[kept rows, hidden]`, `d`: `[all rows, hidden]`
pub(crate) fn gather_backward(d_x: &[f32], kept: Kept<'_>, hidden: usize, scale: f32, d: &mut [f32]) {
    let sample = kept.length * hidden;
    d.par_chunks_mut(sample).enumerate().for_each(|(index, d)| {
        let Ok(compact) = kept.samples.binary_search(&index) else { return };
        let d_x = &d_x[compact * sample..][..sample];
        if scale == 1.0 {
            d.copy_from_slice(d_x);
        } else {
            d.iter_mut().zip(d_x).for_each(|(d, d_x)| *d = (1.0 - scale) * *d + d_x);
        }
    });
}

/// Adds compact rows to some rows of `d`: `d[positions[i]] += d_x[i]`.
///
/// # Shapes
/// `d_x`: `[positions, hidden]`, `d`: `[all rows, hidden]`
pub(crate) fn add_rows(d_x: &[f32], positions: &[usize], hidden: usize, d: &mut [f32]) {
    assert_eq!(d_x.len(), positions.len() * hidden, "a row for each position");
    for (d_x, position) in d_x.chunks_exact(hidden).zip(positions) {
        (active().axpy)(1.0, d_x, &mut d[position * hidden..][..hidden]);
    }
}

/// Copies the whole stream, through a layer that runs for no sample.
///
/// # Shapes
/// `x`, `out`: alike
pub(crate) fn copy(x: &[f32], out: &mut [f32]) {
    out.copy_from_slice(x);
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    const HIDDEN: usize = 5;
    const LENGTH: usize = 35;

    /// A layer whose branches are fixed numbers, `x + scale · (attention + feed_forward)`.
    fn layer(x: &[f32], kept: Kept<'_>, branches: [&[f32]; 2], scale: f32) -> Vec<f32> {
        let mut middle = vec![f32::NAN; kept.rows() * HIDDEN];
        gather(x, kept, HIDDEN, branches[0], &mut middle);
        let mut out = vec![f32::NAN; x.len()];
        scatter(x, kept, HIDDEN, LayerOutput { middle: &middle, branch: branches[1], scale }, &mut out);
        out
    }

    #[test]
    fn gradients_are_those_of_differences() {
        for (samples, scale) in [(vec![0, 1, 2], 1.0), (vec![0, 2], 1.0), (vec![1], 1.25), (vec![], 2.0)] {
            let kept = Kept { samples: &samples, length: LENGTH };
            let (x, d_out) = (numbers(3 * LENGTH * HIDDEN, 1), numbers(3 * LENGTH * HIDDEN, 2));
            let branches = [numbers(kept.rows() * HIDDEN, 3), numbers(kept.rows() * HIDDEN, 4)];
            let mut d_branch = vec![f32::NAN; kept.rows() * HIDDEN];
            scatter_backward(&d_out, kept, HIDDEN, scale, &mut d_branch);
            let mut d_x = d_out.clone();
            gather_backward(&d_branch, kept, HIDDEN, scale, &mut d_x);
            let loss = |x: &[f32], attention: &[f32], feed_forward: &[f32]| {
                weigh(&layer(x, kept, [attention, feed_forward], scale), &d_out)
            };
            assert_gradient("x", &x, &d_x, |x| loss(x, &branches[0], &branches[1]));
            if !samples.is_empty() {
                assert_gradient("attention", &branches[0], &d_branch, |b| loss(&x, b, &branches[1]));
                assert_gradient("feed_forward", &branches[1], &d_branch, |b| loss(&x, &branches[0], b));
            }
        }
    }

    #[test]
    fn added_rows_stand_at_their_positions() {
        let (before, rows) = (numbers(4 * HIDDEN, 1), numbers(2 * HIDDEN, 2));
        let mut d = before.clone();
        add_rows(&rows, &[1, 3], HIDDEN, &mut d);
        for (i, found) in d.iter().enumerate() {
            let added = match i / HIDDEN {
                1 => rows[i - HIDDEN],
                3 => rows[i - 2 * HIDDEN],
                _ => 0.0,
            };
            assert_eq!(*found, before[i] + added, "{i}");
        }
    }

    #[test]
    fn a_dropped_sample_passes_unchanged() {
        let kept = Kept { samples: &[1], length: LENGTH };
        let (x, branch) = (numbers(2 * LENGTH * HIDDEN, 1), numbers(LENGTH * HIDDEN, 2));
        let out = layer(&x, kept, [&branch, &branch], 1.0);
        assert_eq!(out[..LENGTH * HIDDEN], x[..LENGTH * HIDDEN]);
        assert_ne!(out[LENGTH * HIDDEN..], x[LENGTH * HIDDEN..]);
    }
}
