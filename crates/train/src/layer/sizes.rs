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

    /// The width of the widest norm.
    pub(super) fn widest_norm(&self) -> usize {
        if self.low_bit { self.widest() } else { self.hidden }
    }
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
