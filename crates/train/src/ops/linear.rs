//! `y = x·Wᵀ` for every token.

use offramp_kernels::gemm::{Matrix, MatrixMut, Threads, Write, gemm};

/// A linear layer's sizes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Tokens that go through.
    pub tokens: usize,
    /// Length of an input row.
    pub in_features: usize,
    /// Length of an output row.
    pub out_features: usize,
}

/// `out = x·Wᵀ`.
///
/// # Shapes
/// `x`: `[tokens, in]`, `weight`: `[out, in]`, `out`: `[tokens, out]`
pub fn forward(shape: Shape, x: &[f32], weight: &[f32], out: &mut [f32]) {
    let Shape { tokens, in_features, out_features } = shape;
    let out = MatrixMut::new(out, tokens, out_features);
    let (x, weight) = (Matrix::new(x, tokens, in_features), Matrix::new(weight, out_features, in_features));
    gemm(out, Write::Replace, 1.0, x, weight.t(), Threads::All);
}

/// The gradient of the input: `d_x (+)= d_out·W`.
///
/// # Shapes
/// As [`forward`].
pub fn backward_input(shape: Shape, weight: &[f32], d_out: &[f32], write: Write, d_x: &mut [f32]) {
    let Shape { tokens, in_features, out_features } = shape;
    let d_x = MatrixMut::new(d_x, tokens, in_features);
    let (d_out, weight) =
        (Matrix::new(d_out, tokens, out_features), Matrix::new(weight, out_features, in_features));
    gemm(d_x, write, 1.0, d_out, weight, Threads::All);
}

/// The gradient of the weight, added up: `d_weight += d_outᵀ·x`.
///
/// # Shapes
/// As [`forward`].
pub fn backward_weight(shape: Shape, x: &[f32], d_out: &[f32], d_weight: &mut [f32]) {
    let Shape { tokens, in_features, out_features } = shape;
    let d_weight = MatrixMut::new(d_weight, out_features, in_features);
    let (d_out, x) = (Matrix::new(d_out, tokens, out_features), Matrix::new(x, tokens, in_features));
    gemm(d_weight, Write::Add, 1.0, d_out.t(), x, Threads::All);
}
