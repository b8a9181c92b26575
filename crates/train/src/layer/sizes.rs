//! The sizes of a layer, and the rotary angles of its positions: the same for every layer.

use crate::ops::heads::{HeadSizes, Rotary};
use offramp_model::{Config, Rope};

/// The sizes of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    /// Whether a norm stands before `o_proj` and `down_proj`, and the matrices are ternary.
    pub(super) low_bit: bool,
    /// Whether queries and keys are normed, head by head.
    pub(super) head_norms: bool,
    /// The longest bias of matrices that read the same input, 0 where there is none.
    pub(super) widest_bias: usize,
}

impl Sizes {
    /// The sizes of a model's layers.
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            kv_heads: config.num_key_value_heads,
            group: config.num_attention_heads / config.num_key_value_heads,
            head_dim: config.head_dim,
            low_bit: config.bit_linear.is_some(),
            head_norms: config.has_qk_norm(),
            widest_bias: if config.has_bias() { widest_bias(config) } else { 0 },
        }
    }

    /// The sizes of attention over samples of `length` tokens.
    pub(super) fn heads(&self, length: usize) -> HeadSizes {
        HeadSizes { kv_heads: self.kv_heads, group: self.group, head_dim: self.head_dim, length }
    }

    /// The width of the widest input of a matrix.
    pub(super) fn widest(&self) -> usize {
        self.hidden.max(self.intermediate).max(self.kv_heads * self.group * self.head_dim)
    }

    /// Width of the partial sums that the gradients of norms need.
    pub(super) fn widest_norm(&self) -> usize {
        let hidden = if self.low_bit { self.widest() } else { self.hidden };
        if self.head_norms { hidden.max(2 * self.head_dim) } else { hidden } // queries' and keys' together
    }
}

/// Output features of q, k and v, or of gate and up, or of any matrix alone.
fn widest_bias(config: &Config) -> usize {
    let heads = config.num_attention_heads + 2 * config.num_key_value_heads;
    (heads * config.head_dim).max(2 * config.intermediate_size).max(config.hidden_size)
}

/// Cosines and sines of every position.
#[derive(Debug)]
pub(crate) struct RotaryTable {
    cos: Vec<f32>,       // [positions, head_dim / 2]
    sin: Vec<f32>,       // as `cos`
    minus_sin: Vec<f32>, // as `cos`
}

impl RotaryTable {
    /// The angles of the first `positions` positions.
    pub(crate) fn new(config: &Config, positions: usize) -> Self {
        let (cos, sin) = Rope::new(config).table(0..positions);
        let minus_sin = sin.iter().map(|sin| -sin).collect();
        Self { cos, sin, minus_sin }
    }

    /// The rotation of the forward.
    pub(super) fn forward(&self) -> Rotary<'_> {
        Rotary { cos: &self.cos, sin: &self.sin }
    }

    /// Its inverse, the rotation of the backward.
    pub(super) fn inverse(&self) -> Rotary<'_> {
        Rotary { cos: &self.cos, sin: &self.minus_sin }
    }
}
