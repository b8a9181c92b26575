//! Ternary matrices applied to every row, with straight-through gradients.
//!
//! The forward multiplies codes as whole numbers, which `f32` and `bf16` hold exactly, and scales each sum
//! once: the same input gives the engine's result. The backward takes rounding and clipping for the identity
//! (Bengio et al. 2013): with `x~` and `W~`, the values of the codes, `d_x = d_out · W~` and `d_W = d_outᵀ ·
//! x~`.

use super::{BLOCK, linear};
use offramp_kernels::active;
use offramp_kernels::bit_linear::{self, Activations};
use offramp_kernels::gemm::Factors;
use offramp_kernels::rayon::prelude::*;

/// Ternary matrices that read the same input and stand one after the other, `[out_features, in_features]` in
/// all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ternary<'a> {
    /// Codes of all weights: −1, 0 or 1.
    pub(crate) codes: &'a [f32],
    /// One for each matrix.
    pub(crate) scales: &'a [MatrixScale],
}

/// One matrix of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct MatrixScale {
    /// Rows of the matrix, which are columns of the output.
    pub(crate) out_features: usize,
    /// What a code of 1 is worth.
    pub(crate) scale: f32,
}

/// Rows of codes, and what a code of 1 is worth in each row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuantizedRows<'a> {
    /// `[rows, in_features]`
    pub(crate) codes: &'a [f32],
    /// `[rows]`
    pub(crate) scales: &'a [f32],
}

/// Writes the codes of one matrix and returns their scale.
///
/// # Shapes
/// `weights`, `codes`: alike
pub(crate) fn quantize_weights(weights: &[f32], codes: &mut [f32]) -> f32 {
    let scale = bit_linear::absmean(weights);
    bit_linear::ternary(weights, scale, codes);
    scale
}

/// Writes the codes of every row, and their scales.
///
/// # Shapes
/// `x`, `codes`: `[rows, in_features]`, `scales`: `[rows]`
pub(crate) fn quantize(
    activations: Activations,
    x: &[f32],
    in_features: usize,
    codes: &mut [f32],
    scales: &mut [f32],
) {
    assert_eq!((codes.len(), scales.len() * in_features), (x.len(), x.len()), "rows of in_features");
    let blocks = codes.par_chunks_mut(BLOCK * in_features).zip(scales.par_chunks_mut(BLOCK));
    blocks.zip(x.par_chunks(BLOCK * in_features)).for_each(|((codes, scales), x)| {
        let mut narrow = vec![0; in_features];
        let rows = x.chunks_exact(in_features).zip(codes.chunks_exact_mut(in_features));
        for ((x, codes), scale) in rows.zip(scales) {
            (*scale, _) = (active().quantize_row)(activations, x, &mut narrow);
            codes.iter_mut().zip(&narrow).for_each(|(code, &narrow)| *code = f32::from(narrow));
        }
    });
}

/// Writes what the codes of every row are worth.
///
/// # Shapes
/// `x`, `values`: `[rows, in_features]`
pub(crate) fn round(activations: Activations, x: &[f32], in_features: usize, values: &mut [f32]) {
    assert_eq!(values.len(), x.len(), "rows of in_features");
    let blocks = values.par_chunks_mut(BLOCK * in_features).zip(x.par_chunks(BLOCK * in_features));
    blocks.for_each(|(values, x)| {
        let mut codes = vec![0; in_features];
        for (x, values) in x.chunks_exact(in_features).zip(values.chunks_exact_mut(in_features)) {
            let (scale, _) = (active().quantize_row)(activations, x, &mut codes);
            values.iter_mut().zip(&codes).for_each(|(value, &code)| *value = f32::from(code) * scale);
        }
    });
}

/// `out = x~ · W~ᵀ`, of codes.
///
/// # Shapes
/// `x`: `[rows, in_features]`, `out`: `[rows, out_features]`
pub(crate) fn forward(
    x: QuantizedRows<'_>,
    weight: Ternary<'_>,
    in_features: usize,
    factors: Factors,
    out: &mut [f32],
) {
    linear::forward(x.codes, weight.codes, in_features, factors, out);
    let out_features = weight.codes.len() / in_features;
    let blocks = out.par_chunks_mut(BLOCK * out_features).zip(x.scales.par_chunks(BLOCK));
    blocks.for_each(|(out, scales)| {
        for (row, scale) in out.chunks_exact_mut(out_features).zip(scales) {
            scale_columns(row, weight.scales, *scale);
        }
    });
}

/// Overwrites `d_x`: `d_x = d_out · W~`. Uses up `d_out` where there are several matrices.
///
/// # Shapes
/// `d_out`: `[rows, out_features]`, `d_x`: `[rows, in_features]`
pub(crate) fn backward_input(
    d_out: &mut [f32],
    weight: Ternary<'_>,
    in_features: usize,
    factors: Factors,
    d_x: &mut [f32],
) {
    let alpha = match weight.scales {
        [only] => only.scale,
        scales => {
            let out_features = weight.codes.len() / in_features;
            d_out.par_chunks_mut(BLOCK * out_features).for_each(|block| {
                block.chunks_exact_mut(out_features).for_each(|row| scale_columns(row, scales, 1.0));
            });
            1.0
        }
    };
    linear::backward_input(&*d_out, weight.codes, in_features, alpha, factors, d_x);
}

/// Multiplies a row's columns of each matrix by `factor` times the matrix's scale.
fn scale_columns(mut row: &mut [f32], matrices: &[MatrixScale], factor: f32) {
    for matrix in matrices {
        let (columns, rest) = row.split_at_mut(matrix.out_features);
        let scale = factor * matrix.scale;
        columns.iter_mut().for_each(|value| *value *= scale);
        row = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;
    use offramp_kernels::strips::STRIP;
    use offramp_kernels::ternary::{self as strips, InputQuantization};
    use offramp_kernels::{Job, Operand, TernaryWeight, Weight, linear as linear_of_the_engine};

    const IN: usize = 12;

    /// Two matrices of 3 and 5 rows: their codes, their scales, and what the codes are worth.
    fn weights() -> (Vec<f32>, [MatrixScale; 2], Vec<f32>) {
        let weights = numbers(8 * IN, 1);
        let mut codes = vec![f32::NAN; weights.len()];
        let (first, second) = codes.split_at_mut(3 * IN);
        let scales = [
            MatrixScale { out_features: 3, scale: quantize_weights(&weights[..3 * IN], first) },
            MatrixScale { out_features: 5, scale: 0.25 * quantize_weights(&weights[3 * IN..], second) },
        ];
        let values = codes.iter().enumerate().map(|(i, code)| code * scales[usize::from(i >= 3 * IN)].scale);
        let values = values.collect();
        (codes, scales, values)
    }

    /// At the values of the codes it is an ordinary product, and differences of that product give its
    /// gradients.
    #[test]
    fn gradients_go_straight_through() {
        let rows = 67; // more than a block
        let (codes, scales, values) = weights();
        let (x, d_out) = (numbers(rows * IN, 2), numbers(rows * 8, 3));
        for activations in [Activations::Int8, Activations::Int4] {
            let (mut x_codes, mut x_scales) = (vec![f32::NAN; x.len()], vec![f32::NAN; rows]);
            quantize(activations, &x, IN, &mut x_codes, &mut x_scales);
            let rows_of_x = QuantizedRows { codes: &x_codes, scales: &x_scales };
            let mut out = vec![f32::NAN; rows * 8];
            let weight = Ternary { codes: &codes, scales: &scales };
            forward(rows_of_x, weight, IN, Factors::F32, &mut out);
            let mut narrow = vec![f32::NAN; rows * 8];
            forward(rows_of_x, weight, IN, Factors::Bf16, &mut narrow);
            assert_eq!(out, narrow, "whole numbers are exact in bf16");
            let mut x_values = vec![f32::NAN; x.len()];
            round(activations, &x, IN, &mut x_values);
            let loss = |x: &[f32], weight: &[f32]| {
                let mut out = vec![f32::NAN; rows * 8];
                linear::forward(x, weight, IN, Factors::F32, &mut out);
                weigh(&out, &d_out)
            };
            let found = weigh(&out, &d_out);
            assert!((found / loss(&x_values, &values) - 1.0).abs() < 1e-5, "{found}");
            let mut d_weight = vec![0.0; values.len()];
            linear::backward_weight(&d_out[..], &x_values, IN, 1.0, Factors::F32, &mut d_weight);
            assert_gradient("weight", &values, &d_weight, |weight| loss(&x_values, weight));
            let mut d_x = vec![f32::NAN; x.len()];
            backward_input(&mut d_out.clone(), weight, IN, Factors::F32, &mut d_x);
            assert_gradient("x", &x_values, &d_x, |x| loss(x, &values));
        }
    }

    /// The engine's product of the same input, whole numbers in strips, gives the same bits.
    #[test]
    fn it_is_the_engines_product() {
        let (rows, out_features) = (19, 37);
        let (x, weights) = (numbers(rows * 64, 2), numbers(out_features * 64, 1));
        let mut codes = vec![0.0; weights.len()];
        let scales = [MatrixScale { out_features, scale: quantize_weights(&weights, &mut codes) }];
        let mut strips = vec![0; strips::bytes(out_features, 64).expect("it fits")];
        let whole: Vec<i8> = codes.iter().map(|&code| code as i8).collect();
        let each = strips.chunks_mut(strips::strip_bytes(64)).zip(whole.chunks(STRIP * 64));
        each.for_each(|(strip, codes)| strips::pack(codes, 64, strip));
        for input in InputQuantization::ALL {
            let mut rotated = x.clone();
            if input.hadamard {
                crate::ops::hadamard::forward(&mut rotated, 64);
            }
            let (mut x_codes, mut x_scales) = (vec![0.0; x.len()], vec![0.0; rows]);
            quantize(input.activations, &rotated, 64, &mut x_codes, &mut x_scales);
            let mut found = vec![f32::NAN; rows * out_features];
            let rows_of_x = QuantizedRows { codes: &x_codes, scales: &x_scales };
            let weight = Ternary { codes: &codes, scales: &scales };
            forward(rows_of_x, weight, 64, Factors::F32, &mut found);
            let mut expected = vec![f32::NAN; found.len()];
            let weight = Weight::Ternary(TernaryWeight { strips: &strips, step: scales[0].scale, input });
            linear_of_the_engine(&x, 64, &mut Operand::default(), &mut [Job { weight, out: &mut expected }]);
            assert_eq!(found, expected, "{input:?}");
        }
    }

    #[test]
    fn a_single_matrix_leaves_the_gradient_as_it_was() {
        let (codes, scales, values) = weights();
        let weight = Ternary { codes: &codes[..3 * IN], scales: &scales[..1] };
        let (d_out, mut d_x, mut expected) = (numbers(2 * 3, 3), vec![0.0; 2 * IN], vec![0.0; 2 * IN]);
        let mut used = d_out.clone();
        backward_input(&mut used, weight, IN, Factors::F32, &mut d_x);
        assert_eq!(used, d_out);
        linear::backward_input(&d_out[..], &values[..3 * IN], IN, 1.0, Factors::F32, &mut expected);
        assert!(d_x.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-6));
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let (codes, scales, _) = weights();
        let weight = Ternary { codes: &codes, scales: &scales };
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = numbers(2 * IN, 2);
            x[IN + 3] = bad;
            let (mut x_codes, mut x_scales, mut out) = (vec![0.0; 2 * IN], vec![0.0; 2], vec![0.0; 2 * 8]);
            quantize(Activations::Int8, &x, IN, &mut x_codes, &mut x_scales);
            forward(QuantizedRows { codes: &x_codes, scales: &x_scales }, weight, IN, Factors::F32, &mut out);
            assert!(
                out[..8].iter().all(|y| y.is_finite()) && out[8..].iter().all(|y| !y.is_finite()),
                "{out:?}"
            );
        }
    }
}
