//! RMSNorm of every query and key head, before it is rotated (Qwen3). Values pass unchanged.

use super::BLOCK;
use super::heads::HeadSizes;
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::{NormRow, active};

/// The weights of both norms, `[head_dim]` each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadNorms<'a> {
    pub(crate) q: &'a [f32],
    pub(crate) k: &'a [f32],
}

/// Their gradients, which are added to.
#[derive(Debug)]
pub(crate) struct HeadNormGradients<'a> {
    pub(crate) q: &'a mut [f32],
    pub(crate) k: &'a mut [f32],
}

/// What [`backward`] needs of the forward.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NormedHeads<'a> {
    /// The input, rows of the projections.
    pub(crate) x: &'a [f32],
    pub(crate) norms: HeadNorms<'a>,
    /// What [`forward`] kept.
    pub(crate) inv_rms: &'a [f32],
}

/// `out = x` with every query and key normed.
///
/// # Shapes
/// `x`, `out`: `[rows, row()]`, `inv_rms`: `[rows, heads + kv_heads]`
pub(crate) fn forward(
    x: &[f32],
    sizes: HeadSizes,
    norms: HeadNorms<'_>,
    eps: f32,
    out: &mut [f32],
    inv_rms: &mut [f32],
) {
    let (row, normed) = (sizes.row(), sizes.normed());
    assert_eq!((x.len(), inv_rms.len() * row), (out.len(), out.len() * normed), "rows of the projections");
    let blocks = out.par_chunks_mut(BLOCK * row).zip(inv_rms.par_chunks_mut(BLOCK * normed));
    blocks.zip(x.par_chunks(BLOCK * row)).for_each(|((out, inv_rms), x)| {
        let rows = out.chunks_exact_mut(row).zip(inv_rms.chunks_exact_mut(normed));
        for ((out, inv_rms), x) in rows.zip(x.chunks_exact(row)) {
            let heads = out.chunks_exact_mut(sizes.head_dim).zip(x.chunks_exact(sizes.head_dim));
            for (index, (out, x)) in heads.enumerate() {
                match inv_rms.get_mut(index) {
                    Some(inv_rms) => *inv_rms = (active().rms_norm)(x, weight(norms, sizes, index), eps, out),
                    None => out.copy_from_slice(x), // a value
                }
            }
        }
    });
}

/// Overwrites `d_x` and adds to `gradients`. `partial` is scratch.
///
/// # Shapes
/// `d_out`, `d_x`: `[rows, row()]`, `partial`: at least `[⌈rows / BLOCK⌉, 2 · head_dim]`
pub(crate) fn backward(
    normed: NormedHeads<'_>,
    sizes: HeadSizes,
    d_out: &[f32],
    d_x: &mut [f32],
    gradients: HeadNormGradients<'_>,
    partial: &mut [f32],
) {
    let NormedHeads { x, norms, inv_rms } = normed;
    let (row, head_dim, heads) = (sizes.row(), sizes.head_dim, sizes.normed());
    assert_eq!((x.len(), d_x.len()), (d_out.len(), d_out.len()), "rows of the projections");
    let partial = &mut partial[..(x.len() / row).div_ceil(BLOCK) * 2 * head_dim];
    let blocks = d_x.par_chunks_mut(BLOCK * row).zip(partial.par_chunks_mut(2 * head_dim)).enumerate();
    blocks.for_each(|(block, (d_x, partial))| {
        partial.fill(0.0);
        let (d_q, d_k) = partial.split_at_mut(head_dim);
        for (i, d_x) in d_x.chunks_exact_mut(row).enumerate() {
            let at = block * BLOCK + i;
            let (x, d_out) = (&x[at * row..][..row], &d_out[at * row..][..row]);
            for (index, d_x) in d_x.chunks_exact_mut(head_dim).enumerate() {
                let place = index * head_dim..(index + 1) * head_dim;
                let (x, d_out) = (&x[place.clone()], &d_out[place]);
                if index >= heads {
                    d_x.copy_from_slice(d_out); // a value
                    continue;
                }
                d_x.fill(0.0);
                let (weight, inv_rms) = (weight(norms, sizes, index), inv_rms[at * heads + index]);
                let d_weight = if index < sizes.queries() / head_dim { &mut *d_q } else { &mut *d_k };
                (active().rms_norm_backward)(NormRow { x, weight, inv_rms, d_out }, d_x, d_weight);
            }
        }
    });
    for partial in partial.chunks_exact(2 * head_dim) {
        (active().axpy)(1.0, &partial[..head_dim], gradients.q);
        (active().axpy)(1.0, &partial[head_dim..], gradients.k);
    }
}

/// The weight of a head's norm: queries come first.
fn weight<'a>(norms: HeadNorms<'a>, sizes: HeadSizes, index: usize) -> &'a [f32] {
    if index < sizes.queries() / sizes.head_dim { norms.q } else { norms.k }
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    const EPS: f32 = 1e-5;
    const SIZES: HeadSizes = HeadSizes { kv_heads: 2, group: 2, head_dim: 3, length: 1 };
    const ROWS: usize = BLOCK + 3;

    fn normed(x: &[f32], norms: HeadNorms<'_>) -> (Vec<f32>, Vec<f32>) {
        let (mut out, mut inv_rms) = (vec![f32::NAN; x.len()], vec![f32::NAN; ROWS * SIZES.normed()]);
        forward(x, SIZES, norms, EPS, &mut out, &mut inv_rms);
        (out, inv_rms)
    }

    #[test]
    fn queries_and_keys_are_normed_and_values_are_not() {
        let (x, q, k) = (numbers(ROWS * SIZES.row(), 1), numbers(3, 2), numbers(3, 3));
        let (out, _) = normed(&x, HeadNorms { q: &q, k: &k });
        for (index, (head, found)) in x.chunks(3).zip(out.chunks(3)).enumerate() {
            let inv_rms = 1.0 / (head.iter().map(|x| x * x).sum::<f32>() / 3.0 + EPS).sqrt();
            let weight = match index % 8 {
                0..4 => &q,
                4..6 => &k,
                _ => {
                    assert_eq!(found, head);
                    continue;
                }
            };
            for element in 0..3 {
                let expected = head[element] * inv_rms * weight[element];
                assert!((found[element] - expected).abs() < 1e-5, "head {index}");
            }
        }
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let (x, q, k) = (numbers(ROWS * SIZES.row(), 1), numbers(3, 2), numbers(3, 3));
        let d_out = numbers(x.len(), 4);
        let norms = HeadNorms { q: &q, k: &k };
        let (_, inv_rms) = normed(&x, norms);
        let (mut d_x, mut d_q, mut d_k) = (vec![f32::NAN; x.len()], [0.0; 3], [0.0; 3]);
        let gradients = HeadNormGradients { q: &mut d_q, k: &mut d_k };
        let kept = NormedHeads { x: &x, norms, inv_rms: &inv_rms };
        backward(kept, SIZES, &d_out, &mut d_x, gradients, &mut [9.0; 12]);
        assert_gradient("x", &x, &d_x, |x| weigh(&normed(x, norms).0, &d_out));
        assert_gradient("q", &q, &d_q, |q| weigh(&normed(&x, HeadNorms { q, k: &k }).0, &d_out));
        assert_gradient("k", &k, &d_k, |k| weigh(&normed(&x, HeadNorms { q: &q, k }).0, &d_out));
    }
}
