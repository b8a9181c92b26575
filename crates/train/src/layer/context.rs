//! One layer as its halves see it: its sizes, its weights, and how its products are computed.

use super::products::{Products, Projection};
use super::sizes::{RotaryTable, Sizes};
use crate::ops::Kept;
use crate::parameters::LayerWeights;
use crate::profile::Op;
use crate::step_weights::TernaryLayer;

/// One layer, ready to run.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) sizes: &'a Sizes,
    pub(crate) rotary: &'a RotaryTable,
    pub(crate) products: &'a Products,
    pub(crate) weights: LayerWeights<'a>,
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
    pub(super) fn qkv_proj(&self) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.qkv_proj);
        let in_features = self.sizes.hidden;
        Projection { op: Op::QkvProj, weight: self.weights.qkv_proj, ternary, in_features }
    }

    pub(super) fn o_proj(&self) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.o_proj);
        let in_features = self.sizes.heads(1).queries();
        Projection { op: Op::OProj, weight: self.weights.o_proj, ternary, in_features }
    }

    pub(super) fn gate_up_proj(&self) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.gate_up_proj);
        let in_features = self.sizes.hidden;
        Projection { op: Op::GateUpProj, weight: self.weights.gate_up_proj, ternary, in_features }
    }

    pub(super) fn down_proj(&self) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.down_proj);
        let in_features = self.sizes.intermediate;
        Projection { op: Op::DownProj, weight: self.weights.down_proj, ternary, in_features }
    }
}
