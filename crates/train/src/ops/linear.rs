//! A matrix as Hugging Face stores it, `[out_features, in_features]`, applied to every row, and the bias
//! after it.

use super::BLOCK;
use offramp_kernels::active;
use offramp_kernels::gemm::{Factors, Matrix, MatrixMut, Product, Threads, Values, Write, gemm};
use offramp_kernels::rayon::prelude::*;

fn product(alpha: f32, factors: Factors) -> Product {
    Product { alpha, factors, threads: Threads::All }
}

/// `out = x · weightᵀ`.
///
/// # Shapes
/// `x`: `[rows, in_features]`, `weight`: `[out_features, in_features]`, `out`: `[rows, out_features]`
pub(crate) fn forward(x: &[f32], weight: &[f32], in_features: usize, factors: Factors, out: &mut [f32]) {
    let (rows, out_features) = (x.len() / in_features, weight.len() / in_features);
    let x = Matrix::new(x, rows, in_features);
    let weight = Matrix::new(weight, out_features, in_features);
    gemm(MatrixMut::new(out, rows, out_features), Write::Replace, x, weight.t(), product(1.0, factors));
}

/// Overwrites `d_x`: `d_x = alpha · d_out · weight`.
///
/// # Shapes
/// As [`forward`]; `d_out` like `out`, `d_x` like `x`.
pub(crate) fn backward_input<'a>(
    d_out: impl Into<Values<'a>>,
    weight: &[f32],
    in_features: usize,
    alpha: f32,
    factors: Factors,
    d_x: &mut [f32],
) {
    let (rows, out_features) = (d_x.len() / in_features, weight.len() / in_features);
    let d_out = Matrix::new(d_out, rows, out_features);
    let weight = Matrix::new(weight, out_features, in_features);
    gemm(MatrixMut::new(d_x, rows, in_features), Write::Replace, d_out, weight, product(alpha, factors));
}

/// Adds to `d_weight`: `d_weight += alpha · d_outᵀ · x`.
///
/// # Shapes
/// As [`forward`]; `d_out` like `out`, `d_weight` like `weight`.
pub(crate) fn backward_weight<'a>(
    d_out: impl Into<Values<'a>>,
    x: &[f32],
    in_features: usize,
    alpha: f32,
    factors: Factors,
    d_weight: &mut [f32],
) {
    let (rows, out_features) = (x.len() / in_features, d_weight.len() / in_features);
    let d_out = Matrix::new(d_out, rows, out_features);
    let x = Matrix::new(x, rows, in_features);
    let d_weight = MatrixMut::new(d_weight, out_features, in_features);
    gemm(d_weight, Write::Add, d_out.t(), x, product(alpha, factors));
}

/// Adds the bias to every row.
///
/// # Shapes
/// `bias`: `[out_features]`, `out`: `[rows, out_features]`
pub(crate) fn add_bias(bias: &[f32], out: &mut [f32]) {
    out.par_chunks_mut(BLOCK * bias.len()).for_each(|block| {
        block.chunks_exact_mut(bias.len()).for_each(|row| (active().axpy)(1.0, bias, row));
    });
}

/// Adds to `d_bias` the sum of the rows of `d_out`. `partial` is scratch.
///
/// # Shapes
/// As [`add_bias`]; `d_out` like `out`, `d_bias` like `bias`, `partial`: at least `[⌈rows / BLOCK⌉,
/// out_features]`
pub(crate) fn backward_bias(d_out: &[f32], d_bias: &mut [f32], partial: &mut [f32]) {
    let width = d_bias.len();
    let blocks = d_out.par_chunks(BLOCK * width).zip(partial.par_chunks_mut(width));
    blocks.for_each(|(d_out, partial)| {
        partial.fill(0.0);
        d_out.chunks_exact(width).for_each(|row| (active().axpy)(1.0, row, partial));
    });
    let used = (d_out.len() / width).div_ceil(BLOCK) * width;
    partial[..used].chunks_exact(width).for_each(|partial| (active().axpy)(1.0, partial, d_bias));
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    #[test]
    fn a_bias_is_added_to_every_row_and_its_gradient_is_their_sum() {
        let (rows, width) = (BLOCK + 3, 5); // more than a block
        let (x, bias, d_out) = (numbers(rows * width, 1), numbers(width, 2), numbers(rows * width, 3));
        let (mut d_bias, mut partial) = (vec![0.0; width], vec![f32::NAN; 3 * width]);
        backward_bias(&d_out, &mut d_bias, &mut partial);
        assert_gradient("bias", &bias, &d_bias, |bias| {
            let mut out = x.clone();
            add_bias(bias, &mut out);
            weigh(&out, &d_out)
        });
    }

    #[test]
    fn gradients_are_those_of_differences() {
        let (rows, in_features, out_features) = (7, 5, 3);
        let (x, weight) = (numbers(rows * in_features, 1), numbers(out_features * in_features, 2));
        let d_out = numbers(rows * out_features, 3);
        let loss = |x: &[f32], weight: &[f32]| {
            let mut out = vec![f32::NAN; rows * out_features];
            forward(x, weight, in_features, Factors::F32, &mut out);
            2.0 * weigh(&out, &d_out)
        };
        let mut d_x = vec![f32::NAN; x.len()];
        backward_input(&d_out[..], &weight, in_features, 2.0, Factors::F32, &mut d_x);
        assert_gradient("x", &x, &d_x, |x| loss(x, &weight));
        let mut d_weight = vec![0.0; weight.len()];
        backward_weight(&d_out[..], &x, in_features, 2.0, Factors::F32, &mut d_weight);
        assert_gradient("weight", &weight, &d_weight, |weight| loss(&x, weight));
    }
}
