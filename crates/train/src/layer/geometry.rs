//! What is the same for every layer: sizes, angles, and how products are made and timed.

use super::low_bit::Room;
use crate::ops::bit_linear::Ternary;
use crate::ops::heads::{HeadShape, Rotary};
use crate::ops::{bit_linear, linear};
use crate::profile::{Clock, Op, Way, product};
use offramp_kernels::gemm::Factors;
use offramp_model::{BitLinear, Config};

/// Sizes, angles, and how products are made and timed: the same for every layer.
#[derive(Debug)]
pub(crate) struct Geometry {
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) eps: f32,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    cos: Vec<f32>,       // [positions, head_dim / 2]
    sin: Vec<f32>,       // as `cos`
    minus_sin: Vec<f32>, // as `cos`
    pub(crate) factors: Factors,
    pub(crate) bit_linear: Option<BitLinear>,
    pub(crate) clock: Clock,
}

/// A matrix, or several under each other that read the same input.
#[derive(Clone, Copy)]
pub(super) struct Projection<'a> {
    pub(super) op: Op,
    pub(super) weight: &'a [f32], // [out_features, in_features]
    pub(super) ternary: Option<Ternary<'a>>,
    pub(super) in_features: usize,
}

impl Projection<'_> {
    fn flops(&self, x: &[f32]) -> f64 {
        product(x.len() / self.in_features, self.in_features, self.weight.len() / self.in_features)
    }
}

impl Geometry {
    pub(crate) fn new(config: &Config, positions: usize) -> Self {
        let (cos, sin) = offramp_model::Rope::new(config).table(0..positions);
        let minus_sin = sin.iter().map(|sin| -sin).collect();
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            eps: config.rms_norm_eps as f32,
            kv_heads: config.num_key_value_heads,
            group: config.num_attention_heads / config.num_key_value_heads,
            head_dim: config.head_dim,
            cos,
            sin,
            minus_sin,
            factors: Factors::F32,
            bit_linear: config.bit_linear,
            clock: Clock::new(),
        }
    }

    pub(super) fn heads(&self, length: usize) -> HeadShape {
        HeadShape { kv_heads: self.kv_heads, group: self.group, head_dim: self.head_dim, length }
    }

    /// The width of the widest input of a matrix.
    pub(super) fn widest(&self) -> usize {
        self.hidden.max(self.intermediate).max(self.kv_heads * self.group * self.head_dim)
    }

    pub(super) fn there(&self) -> Rotary<'_> {
        Rotary { cos: &self.cos, sin: &self.sin }
    }

    pub(super) fn back(&self) -> Rotary<'_> {
        Rotary { cos: &self.cos, sin: &self.minus_sin }
    }

    /// `out = x · weightᵀ`, of rounded factors where the matrix is ternary.
    pub(super) fn project(&self, matrix: Projection<'_>, x: &[f32], room: &mut Room, out: &mut [f32]) {
        let Projection { op, weight, ternary, in_features } = matrix;
        let flops = matrix.flops(x);
        match ternary.zip(self.bit_linear) {
            None => self.clock.time(op, Way::Forward, flops, || {
                linear::forward(x, weight, in_features, self.factors, out);
            }),
            Some((ternary, bit_linear)) => {
                let rows = (&mut room.codes[..x.len()], &mut room.steps[..x.len() / in_features]);
                self.clock.time(Op::Quantise, Way::Forward, 0.0, || {
                    bit_linear::quantise(bit_linear.activations, x, in_features, rows.0, rows.1);
                });
                self.clock.time(op, Way::Forward, flops, || {
                    bit_linear::forward((&*rows.0, &*rows.1), ternary, in_features, self.factors, out);
                });
            }
        }
    }

    /// `d_x = d_out · weight`, and `d_weight += d_outᵀ · x`, of the values of rounded factors where the matrix is
    /// ternary. Uses up `d_out` where it is several.
    pub(super) fn project_back(
        &self,
        (matrix, d_weight): (Projection<'_>, &mut [f32]),
        d_out: &mut [f32],
        (x, d_x): (&[f32], &mut [f32]),
        room: &mut Room,
    ) {
        let Projection { op, weight, ternary, in_features } = matrix;
        let flops = 2.0 * matrix.flops(x);
        let how = (1.0, self.factors);
        match ternary.zip(self.bit_linear) {
            None => self.clock.time(op, Way::Backward, flops, || {
                linear::backward_weight(&*d_out, x, in_features, how, d_weight);
                linear::backward_input(&*d_out, weight, in_features, how, d_x);
            }),
            Some((ternary, bit_linear)) => {
                let values = &mut room.codes[..x.len()];
                self.clock.time(Op::Quantise, Way::Backward, 0.0, || {
                    bit_linear::rounded(bit_linear.activations, x, in_features, values);
                });
                self.clock.time(op, Way::Backward, flops, || {
                    linear::backward_weight(&*d_out, values, in_features, how, d_weight);
                    bit_linear::backward_input(d_out, ternary, in_features, self.factors, d_x);
                });
            }
        }
    }
}
