//! Ternary matrices applied to every row, with gradients that go straight through the rounding.
//!
//! Forward, codes are multiplied as whole numbers, which `f32` and `bf16` hold exactly, and the sums are scaled once:
//! for the same input the result is the engine's. Backward, rounding and clipping count as the identity (Bengio et al.
//! 2013), so that with `x~` and `W~`, the values of the codes, `d_x = d_out · W~` and `d_W = d_outᵀ · x~`.

use super::{BLOCK, linear};
use offramp_kernels::active;
use offramp_kernels::bit_linear::{self, Activations};
use offramp_kernels::gemm::Factors;
use offramp_kernels::rayon::prelude::*;

/// Matrices under each other that read the same input, `[out_features, in_features]` in all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ternary<'a> {
    /// Codes of all weights.
    pub(crate) codes: &'a [f32],
    /// One for each matrix.
    pub(crate) parts: &'a [Part],
}

/// One matrix of them.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Part {
    /// Its rows: columns of the output.
    pub(crate) out_features: usize,
    /// What its codes count.
    pub(crate) step: f32,
}

/// Codes of one matrix, and what they count.
///
/// # Shapes
/// `weights`, `codes`: alike
pub(crate) fn quantise_weights(weights: &[f32], codes: &mut [f32]) -> f32 {
    let step = bit_linear::absmean(weights);
    bit_linear::ternary(weights, step, codes);
    step
}

/// Codes of every row, and what they count.
///
/// # Shapes
/// `x`, `codes`: `[rows, in_features]`, `steps`: `[rows]`
pub(crate) fn quantise(
    activations: Activations,
    x: &[f32],
    in_features: usize,
    codes: &mut [f32],
    steps: &mut [f32],
) {
    assert_eq!((codes.len(), steps.len() * in_features), (x.len(), x.len()), "rows of in_features");
    let blocks = codes.par_chunks_mut(BLOCK * in_features).zip(steps.par_chunks_mut(BLOCK));
    blocks.zip(x.par_chunks(BLOCK * in_features)).for_each(|((codes, steps), x)| {
        let mut narrow = vec![0; in_features];
        let rows = x.chunks_exact(in_features).zip(codes.chunks_exact_mut(in_features));
        for ((x, codes), step) in rows.zip(steps) {
            (*step, _) = (active().quantise_row)(activations, x, &mut narrow);
            codes.iter_mut().zip(&narrow).for_each(|(code, &narrow)| *code = f32::from(narrow));
        }
    });
}

/// The values of every row's codes.
///
/// # Shapes
/// `x`, `values`: `[rows, in_features]`
pub(crate) fn rounded(activations: Activations, x: &[f32], in_features: usize, values: &mut [f32]) {
    assert_eq!(values.len(), x.len(), "rows of in_features");
    let blocks = values.par_chunks_mut(BLOCK * in_features).zip(x.par_chunks(BLOCK * in_features));
    blocks.for_each(|(values, x)| {
        let mut codes = vec![0; in_features];
        for (x, values) in x.chunks_exact(in_features).zip(values.chunks_exact_mut(in_features)) {
            let (step, _) = (active().quantise_row)(activations, x, &mut codes);
            values.iter_mut().zip(&codes).for_each(|(value, &code)| *value = f32::from(code) * step);
        }
    });
}

/// `out = x~ · W~ᵀ`, of codes.
///
/// # Shapes
/// `codes`: `[rows, in_features]`, `steps`: `[rows]`, `out`: `[rows, out_features]`
pub(crate) fn forward(
    (codes, steps): (&[f32], &[f32]),
    weight: Ternary<'_>,
    in_features: usize,
    factors: Factors,
    out: &mut [f32],
) {
    linear::forward(codes, weight.codes, in_features, factors, out);
    let out_features = weight.codes.len() / in_features;
    let blocks = out.par_chunks_mut(BLOCK * out_features).zip(steps.par_chunks(BLOCK));
    blocks.for_each(|(out, steps)| {
        for (row, step) in out.chunks_exact_mut(out_features).zip(steps) {
            scale_parts(row, weight.parts, *step);
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
    let step = match weight.parts {
        [only] => only.step,
        parts => {
            let out_features = weight.codes.len() / in_features;
            d_out.par_chunks_mut(BLOCK * out_features).for_each(|block| {
                block.chunks_exact_mut(out_features).for_each(|row| scale_parts(row, parts, 1.0));
            });
            1.0
        }
    };
    linear::backward_input(&*d_out, weight.codes, in_features, (step, factors), d_x);
}

/// Multiplies a row's columns of each matrix by `step` times its own.
fn scale_parts(mut row: &mut [f32], parts: &[Part], step: f32) {
    for part in parts {
        let (columns, rest) = row.split_at_mut(part.out_features);
        let scale = step * part.step;
        columns.iter_mut().for_each(|value| *value *= scale);
        row = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;
    use offramp_kernels::strips::STRIP;
    use offramp_kernels::ternary::{self as strips, Input};
    use offramp_kernels::{Job, Operand, TernaryWeight, Weight, linear as linear_of_the_engine};

    const IN: usize = 12;

    /// Two matrices of 3 and 5 rows, their codes and parts, and what the codes are worth.
    fn weights() -> (Vec<f32>, [Part; 2], Vec<f32>) {
        let weights = numbers(8 * IN, 1);
        let mut codes = vec![f32::NAN; weights.len()];
        let (first, second) = codes.split_at_mut(3 * IN);
        let parts = [
            Part { out_features: 3, step: quantise_weights(&weights[..3 * IN], first) },
            Part { out_features: 5, step: 0.25 * quantise_weights(&weights[3 * IN..], second) },
        ];
        let values = codes.iter().enumerate().map(|(i, code)| code * parts[usize::from(i >= 3 * IN)].step);
        let values = values.collect();
        (codes, parts, values)
    }

    /// Around the values of its codes it is a product as any other: its gradients are those of differences there.
    #[test]
    fn gradients_go_straight_through() {
        let rows = 67; // more than a block
        let (codes, parts, values) = weights();
        let (x, d_out) = (numbers(rows * IN, 2), numbers(rows * 8, 3));
        for activations in [Activations::Int8, Activations::Int4] {
            let (mut x_codes, mut steps) = (vec![f32::NAN; x.len()], vec![f32::NAN; rows]);
            quantise(activations, &x, IN, &mut x_codes, &mut steps);
            let mut out = vec![f32::NAN; rows * 8];
            let weight = Ternary { codes: &codes, parts: &parts };
            forward((&x_codes, &steps), weight, IN, Factors::F32, &mut out);
            let mut narrow = vec![f32::NAN; rows * 8];
            forward((&x_codes, &steps), weight, IN, Factors::Bf16, &mut narrow);
            assert_eq!(out, narrow, "whole numbers are exact in bf16");
            let mut x_values = vec![f32::NAN; x.len()];
            rounded(activations, &x, IN, &mut x_values);
            let loss = |x: &[f32], weight: &[f32]| {
                let mut out = vec![f32::NAN; rows * 8];
                linear::forward(x, weight, IN, Factors::F32, &mut out);
                weigh(&out, &d_out)
            };
            let found = weigh(&out, &d_out);
            assert!((found / loss(&x_values, &values) - 1.0).abs() < 1e-5, "{found}");
            let mut d_weight = vec![0.0; values.len()];
            linear::backward_weight(&d_out[..], &x_values, IN, (1.0, Factors::F32), &mut d_weight);
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
        let parts = [Part { out_features, step: quantise_weights(&weights, &mut codes) }];
        let mut strips = vec![0; strips::bytes(out_features, 64).expect("it fits")];
        let whole: Vec<i8> = codes.iter().map(|&code| code as i8).collect();
        let each = strips.chunks_mut(strips::strip_bytes(64)).zip(whole.chunks(STRIP * 64));
        each.for_each(|(strip, codes)| strips::pack(codes, 64, strip));
        for input in Input::ALL {
            let mut rotated = x.clone();
            if input.hadamard {
                crate::ops::hadamard::forward(&mut rotated, 64);
            }
            let (mut x_codes, mut steps) = (vec![0.0; x.len()], vec![0.0; rows]);
            quantise(input.activations, &rotated, 64, &mut x_codes, &mut steps);
            let mut found = vec![f32::NAN; rows * out_features];
            forward(
                (&x_codes, &steps),
                Ternary { codes: &codes, parts: &parts },
                64,
                Factors::F32,
                &mut found,
            );
            let mut expected = vec![f32::NAN; found.len()];
            let weight = Weight::Ternary(TernaryWeight { strips: &strips, step: parts[0].step, input });
            linear_of_the_engine(&x, 64, &mut Operand::default(), &mut [Job { weight, out: &mut expected }]);
            assert_eq!(found, expected, "{input:?}");
        }
    }

    #[test]
    fn a_single_matrix_leaves_the_gradient_as_it_was() {
        let (codes, parts, values) = weights();
        let weight = Ternary { codes: &codes[..3 * IN], parts: &parts[..1] };
        let (d_out, mut d_x, mut expected) = (numbers(2 * 3, 3), vec![0.0; 2 * IN], vec![0.0; 2 * IN]);
        let mut used = d_out.clone();
        backward_input(&mut used, weight, IN, Factors::F32, &mut d_x);
        assert_eq!(used, d_out);
        linear::backward_input(&d_out[..], &values[..3 * IN], IN, (1.0, Factors::F32), &mut expected);
        assert!(d_x.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() < 1e-6));
    }

    #[test]
    fn what_is_not_finite_is_not_hidden() {
        let (codes, parts, _) = weights();
        let weight = Ternary { codes: &codes, parts: &parts };
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = numbers(2 * IN, 2);
            x[IN + 3] = bad;
            let (mut x_codes, mut steps, mut out) = (vec![0.0; 2 * IN], vec![0.0; 2], vec![0.0; 2 * 8]);
            quantise(Activations::Int8, &x, IN, &mut x_codes, &mut steps);
            forward((&x_codes, &steps), weight, IN, Factors::F32, &mut out);
            assert!(
                out[..8].iter().all(|y| y.is_finite()) && out[8..].iter().all(|y| !y.is_finite()),
                "{out:?}"
            );
        }
    }
}
