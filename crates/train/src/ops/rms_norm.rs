//! RMSNorm, `x / √(mean(x²) + eps) · weight` (Zhang and Sennrich 2019). It also gathers the rows of kept
//! samples.

use super::{BLOCK, Kept};
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::{NormRow, active};

/// `out = norm(x[kept])`; `inv_rms` keeps `1 / √(mean(x²) + eps)` for the backward.
///
/// # Shapes
/// `x`: `[all rows, hidden]`, `weight`: `[hidden]`, `out`: `[kept rows, hidden]`, `inv_rms`: `[kept rows]`
pub(crate) fn forward(
    x: &[f32],
    kept: Kept<'_>,
    weight: &[f32],
    eps: f32,
    out: &mut [f32],
    inv_rms: &mut [f32],
) {
    let hidden = weight.len();
    assert_eq!((out.len(), inv_rms.len()), (kept.rows() * hidden, kept.rows()), "compact rows");
    let blocks = out.par_chunks_mut(BLOCK * hidden).zip(inv_rms.par_chunks_mut(BLOCK)).enumerate();
    blocks.for_each(|(block, (out, inv_rms))| {
        for (i, (out, inv_rms)) in out.chunks_exact_mut(hidden).zip(inv_rms).enumerate() {
            let source = kept.source(block * BLOCK + i);
            *inv_rms = (active().rms_norm)(&x[source * hidden..][..hidden], weight, eps, out);
        }
    });
}

/// Computes the output of [`forward`] again, from the `inv_rms` that it kept.
///
/// # Shapes
/// As [`forward`].
pub(crate) fn recompute(x: &[f32], kept: Kept<'_>, weight: &[f32], inv_rms: &[f32], out: &mut [f32]) {
    let hidden = weight.len();
    assert_eq!((out.len(), inv_rms.len()), (kept.rows() * hidden, kept.rows()), "compact rows");
    out.par_chunks_mut(BLOCK * hidden).enumerate().for_each(|(block, out)| {
        for (i, out) in out.chunks_exact_mut(hidden).enumerate() {
            let row = block * BLOCK + i;
            let (x, inv_rms) = (&x[kept.source(row) * hidden..][..hidden], inv_rms[row]);
            // In the order of the kernel: the bits must be those of the forward.
            out.iter_mut().zip(x).zip(weight).for_each(|((out, x), weight)| *out = x * inv_rms * weight);
        }
    });
}

/// What [`backward`] needs of the forward.
#[derive(Clone, Copy)]
pub(crate) struct Normed<'a> {
    /// The input, `[all rows, hidden]`.
    pub(crate) x: &'a [f32],
    /// The rows of `x` that were normed.
    pub(crate) kept: Kept<'a>,
    /// The norm's weight, `[hidden]`.
    pub(crate) weight: &'a [f32],
    /// What [`forward`] kept, `[kept rows]`.
    pub(crate) inv_rms: &'a [f32],
}

/// Adds to `d_x`, whose rows are compact as `d_out`'s are, and to `d_weight`. `partial` is scratch.
///
/// # Shapes
/// `d_out`, `d_x`: `[kept rows, hidden]`, `d_weight`: `[hidden]`,
/// `partial`: at least `[⌈kept rows / BLOCK⌉, hidden]`
pub(crate) fn backward(
    normed: Normed<'_>,
    d_out: &[f32],
    d_x: &mut [f32],
    d_weight: &mut [f32],
    partial: &mut [f32],
) {
    let Normed { x, kept, weight, inv_rms } = normed;
    let hidden = weight.len();
    assert_eq!((d_out.len(), d_x.len()), (kept.rows() * hidden, kept.rows() * hidden), "compact rows");
    let partial = &mut partial[..kept.rows().div_ceil(BLOCK) * hidden];
    let blocks = d_x.par_chunks_mut(BLOCK * hidden).zip(partial.par_chunks_mut(hidden)).enumerate();
    blocks.for_each(|(block, (d_x, partial))| {
        partial.fill(0.0);
        for (i, d_x) in d_x.chunks_exact_mut(hidden).enumerate() {
            let row = block * BLOCK + i;
            let row = NormRow {
                x: &x[kept.source(row) * hidden..][..hidden],
                weight,
                inv_rms: inv_rms[row],
                d_out: &d_out[row * hidden..][..hidden],
            };
            (active().rms_norm_backward)(row, d_x, partial);
        }
    });
    partial.chunks_exact(hidden).for_each(|partial| (active().axpy)(1.0, partial, d_weight));
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    const EPS: f32 = 1e-5;

    fn normed(x: &[f32], kept: Kept<'_>, weight: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let (mut out, mut inv_rms) = (vec![0.0; kept.rows() * weight.len()], vec![0.0; kept.rows()]);
        forward(x, kept, weight, EPS, &mut out, &mut inv_rms);
        (out, inv_rms)
    }

    #[test]
    fn gradients_are_those_of_differences() {
        // More rows than a block, and sample 1 dropped.
        let (samples, length, hidden) = (3, 35, 5);
        let kept = Kept { samples: &[0, 2], length };
        let (x, weight) = (numbers(samples * length * hidden, 1), numbers(hidden, 2));
        let d_out = numbers(kept.rows() * hidden, 3);
        let (_, inv_rms) = normed(&x, kept, &weight);
        let (mut compact, mut d_weight) = (vec![0.0; d_out.len()], vec![0.0; hidden]);
        let normed_rows = Normed { x: &x, kept, weight: &weight, inv_rms: &inv_rms };
        backward(normed_rows, &d_out, &mut compact, &mut d_weight, &mut vec![9.0; 2 * hidden]);
        let loss = |x: &[f32], weight: &[f32]| weigh(&normed(x, kept, weight).0, &d_out);
        let mut d_x = vec![0.0; x.len()];
        for (row, d_row) in compact.chunks_exact(hidden).enumerate() {
            d_x[kept.source(row) * hidden..][..hidden].copy_from_slice(d_row);
        }
        assert_gradient("x", &x, &d_x, |x| loss(x, &weight));
        assert_gradient("weight", &weight, &d_weight, |weight| loss(&x, weight));
    }

    #[test]
    fn recomputing_gives_the_same_bits() {
        let kept = Kept { samples: &[1, 2], length: 3 };
        let (x, weight) = (numbers(9 * 37, 1), numbers(37, 2));
        let (out, inv_rms) = normed(&x, kept, &weight);
        let mut second = vec![0.0; out.len()];
        recompute(&x, kept, &weight, &inv_rms, &mut second);
        assert_eq!(out, second);
    }
}
