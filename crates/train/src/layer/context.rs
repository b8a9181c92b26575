//! One layer as its halves see it: its sizes, its weights, and how its products are computed.

use super::products::{Products, Projection};
use super::sizes::{RotaryTable, Sizes};
use crate::ops::Kept;
use crate::ops::attention::Attention;
use crate::ops::head_norm::HeadNorms;
use crate::parameters::LayerWeights;
use crate::profile::Op;
use crate::step_weights::TernaryLayer;
use offramp_model::LayerAttention;

/// One layer, ready to run.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) sizes: &'a Sizes,
    pub(crate) rotary: &'a RotaryTable,
    pub(crate) products: &'a Products,
    pub(crate) weights: LayerWeights<'a>,
    /// Whether this layer rotates queries and keys, and its sliding window.
    pub(crate) attention: LayerAttention,
    /// What the matrices are rounded to, if they are ternary.
    pub(crate) ternary: Option<TernaryLayer<'a>>,
}

/// The input of a layer, and which of its rows the layer runs for.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub(super) x: &'a [f32], // [all rows, hidden]
    pub(super) kept: Kept<'a>,
    pub(super) compact: Kept<'a>, // the same rows in a compact buffer
}

impl<'a> Context<'a> {
    /// The attention of this layer, over samples of `length` tokens.
    pub(super) fn attention(&self, length: usize) -> Attention {
        let (sizes, factors) = (self.sizes.heads(length), self.products.factors);
        Attention { sizes, window: self.attention.window, factors }
    }

    /// The norms of query and key heads, if this model has them.
    pub(super) fn head_norms(&self) -> Option<HeadNorms<'a>> {
        let LayerWeights { q_norm: q, k_norm: k, .. } = self.weights;
        self.sizes.head_norms.then_some(HeadNorms { q, k })
    }

    pub(super) fn qkv_proj(&self) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.qkv_proj);
        let in_features = self.sizes.hidden;
        Projection { op: Op::QkvProj, linear: self.weights.qkv_proj, ternary, in_features }
    }

    pub(super) fn o_proj(&self) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.o_proj);
        let in_features = self.sizes.heads(1).queries();
        Projection { op: Op::OProj, linear: self.weights.o_proj, ternary, in_features }
    }

    pub(super) fn gate_up_proj(&self) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.gate_up_proj);
        let in_features = self.sizes.hidden;
        Projection { op: Op::GateUpProj, linear: self.weights.gate_up_proj, ternary, in_features }
    }

    pub(super) fn down_proj(&self) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.down_proj);
        let in_features = self.sizes.intermediate;
        Projection { op: Op::DownProj, linear: self.weights.down_proj, ternary, in_features }
    }
}
