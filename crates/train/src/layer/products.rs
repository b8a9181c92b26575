//! The products and sub-norms of a layer, of floats or of codes, each timed.

use super::buffers::ProductScratch;
use crate::ops::bit_linear::{QuantizedRows, Ternary};
use crate::ops::rms_norm::{self, Normed};
use crate::ops::{Kept, bit_linear, hadamard, linear, values};
use crate::parameters::{LinearGradients, LinearWeights};
use crate::profile::{Clock, Op, Pass, product};
use offramp_kernels::gemm::Factors;
use offramp_model::{BitLinear, Config};

/// How products are computed, and the clock that times them: the same for every layer.
#[derive(Debug)]
pub(crate) struct Products {
    pub(crate) factors: Factors,
    pub(crate) bit_linear: Option<BitLinear>,
    pub(crate) eps: f32,
    pub(crate) clock: Clock,
}

/// One matrix with its bias, or several that read the same input and stand one after the other.
#[derive(Clone, Copy)]
pub(super) struct Projection<'a> {
    pub(super) op: Op,
    pub(super) linear: LinearWeights<'a>,
    pub(super) ternary: Option<Ternary<'a>>,
    pub(super) in_features: usize,
}

impl Projection<'_> {
    fn flops(&self, x: &[f32]) -> f64 {
        product(x.len() / self.in_features, self.in_features, self.linear.weight.len() / self.in_features)
    }
}

/// The rows of a product in the backward.
pub(super) struct BackwardRows<'a> {
    /// The input, `[rows, in_features]`.
    pub(super) x: &'a [f32],
    /// The gradient of the output, `[rows, out_features]`. It is used up.
    pub(super) d_out: &'a mut [f32],
    /// The gradient of the input, which is overwritten.
    pub(super) d_x: &'a mut [f32],
}

impl Products {
    /// Products of a model, in `f32`.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            factors: Factors::F32,
            bit_linear: config.bit_linear,
            eps: config.rms_norm_eps as f32,
            clock: Clock::new(),
        }
    }

    /// `out = x · weightᵀ + bias`, of rounded factors where the matrix is ternary.
    pub(super) fn forward(
        &self,
        matrix: Projection<'_>,
        x: &[f32],
        scratch: &mut ProductScratch,
        out: &mut [f32],
    ) {
        let Projection { op, linear: LinearWeights { weight, bias }, ternary, in_features } = matrix;
        let flops = matrix.flops(x);
        match ternary.zip(self.bit_linear) {
            None => self.clock.time(op, Pass::Forward, flops, || {
                linear::forward(x, weight, in_features, self.factors, out);
                if !bias.is_empty() {
                    linear::add_bias(bias, out);
                }
            }),
            Some((ternary, bit_linear)) => {
                let codes = &mut scratch.codes[..x.len()];
                let scales = &mut scratch.scales[..x.len() / in_features];
                self.clock.time(Op::Quantize, Pass::Forward, 0.0, || {
                    bit_linear::quantize(bit_linear.activations, x, in_features, codes, scales);
                });
                let x = QuantizedRows { codes, scales };
                self.clock.time(op, Pass::Forward, flops, || {
                    bit_linear::forward(x, ternary, in_features, self.factors, out);
                });
            }
        }
    }

    /// `d_x = d_out · weight`, `d_weight += d_outᵀ · x`, and `d_bias +=` the rows of `d_out`. Where the
    /// matrix is ternary, both factors are what their codes are worth.
    pub(super) fn backward(
        &self,
        matrix: Projection<'_>,
        gradients: LinearGradients<'_>,
        rows: BackwardRows<'_>,
        scratch: &mut ProductScratch,
    ) {
        let LinearGradients { weight: d_weight, bias: d_bias } = gradients;
        let BackwardRows { x, d_out, d_x } = rows;
        let Projection { op, linear: LinearWeights { weight, .. }, ternary, in_features } = matrix;
        let (flops, factors) = (2.0 * matrix.flops(x), self.factors);
        match ternary.zip(self.bit_linear) {
            None => self.clock.time(op, Pass::Backward, flops, || {
                if !d_bias.is_empty() {
                    linear::backward_bias(d_out, d_bias, &mut scratch.partial);
                }
                linear::backward_weight(&*d_out, x, in_features, 1.0, factors, d_weight);
                linear::backward_input(&*d_out, weight, in_features, 1.0, factors, d_x);
            }),
            Some((ternary, bit_linear)) => {
                let x_values = &mut scratch.codes[..x.len()];
                self.clock.time(Op::Quantize, Pass::Backward, 0.0, || {
                    bit_linear::round(bit_linear.activations, x, in_features, x_values);
                });
                self.clock.time(op, Pass::Backward, flops, || {
                    linear::backward_weight(&*d_out, x_values, in_features, 1.0, factors, d_weight);
                    bit_linear::backward_input(d_out, ternary, in_features, factors, d_x);
                });
            }
        }
    }

    fn rotates(&self) -> bool {
        self.bit_linear.is_some_and(|bit_linear| bit_linear.hadamard)
    }

    /// The sub-norm of a low-bit layer: `out = hadamard(norm(x))`.
    ///
    /// # Shapes
    /// `x`, `out`: `[rows, width]`, `weight`: `[width]`, `inv_rms`: `[rows]`
    pub(super) fn sub_norm_forward(
        &self,
        x: &[f32],
        rows: Kept<'_>,
        weight: &[f32],
        out: &mut [f32],
        inv_rms: &mut [f32],
    ) {
        let norm = || rms_norm::forward(x, rows, weight, self.eps, out, inv_rms);
        self.clock.time(Op::Norms, Pass::Forward, 0.0, norm);
        if self.rotates() {
            self.clock.time(Op::Quantize, Pass::Forward, 0.0, || hadamard::forward(out, weight.len()));
        }
    }

    /// Computes the output of the sub-norm again.
    pub(super) fn sub_norm_recompute(&self, normed: Normed<'_>, out: &mut [f32]) {
        let Normed { x, kept, weight, inv_rms } = normed;
        let norm = || rms_norm::recompute(x, kept, weight, inv_rms, out);
        self.clock.time(Op::Norms, Pass::Backward, 0.0, norm);
        if self.rotates() {
            self.clock.time(Op::Quantize, Pass::Backward, 0.0, || hadamard::forward(out, weight.len()));
        }
    }

    /// Overwrites `d_x`, uses up `d_out` and adds to `d_weight`.
    pub(super) fn sub_norm_backward(
        &self,
        normed: Normed<'_>,
        d_out: &mut [f32],
        d_x: &mut [f32],
        d_weight: &mut [f32],
        partial: &mut [f32],
    ) {
        if self.rotates() {
            let width = normed.weight.len();
            self.clock.time(Op::Quantize, Pass::Backward, 0.0, || hadamard::backward(d_out, width));
        }
        self.clock.time(Op::Norms, Pass::Backward, 0.0, || {
            values::zero(d_x);
            rms_norm::backward(normed, d_out, d_x, d_weight, partial);
        });
    }
}
