//! One decoder layer: the way there, which keeps what the way back needs, and the way back.

mod attention;
mod feed_forward;
mod geometry;
mod low_bit;

use crate::ops::{BLOCK, Kept, residual};
use crate::parameters::{LayerGradients, LayerWeights};
use crate::profile::{Op, Way};
pub(crate) use geometry::Geometry;
use geometry::Projection;
use low_bit::Room;

/// What a layer keeps of its way there; all compact, for the samples that were kept.
///
/// The outputs of norms and of SwiGLU are not among it: making them again costs a pass over memory, as
/// reading them would, and a third of the room.
#[derive(Debug)]
pub(crate) struct Activations {
    input_inv_rms: Vec<f32>,          // [rows]
    grouped: Vec<f32>,                // [samples, kv_heads, group + 2, length, head_dim], turned
    attended: Vec<f32>,               // [rows, heads · head_dim]
    attn_sub_inv_rms: Vec<f32>,       // [rows], or nothing where there is no such norm
    middle: Vec<f32>,                 // [rows, hidden], the stream between attention and feed-forward
    post_attention_inv_rms: Vec<f32>, // [rows]
    gate_up: Vec<f32>,                // [rows, 2 · intermediate]
    ffn_sub_inv_rms: Vec<f32>,        // as `attn_sub_inv_rms`
}

/// Room that all layers share.
#[derive(Debug)]
pub(crate) struct Scratch {
    normed: Vec<f32>,    // [rows, hidden]
    d_normed: Vec<f32>,  // [rows, hidden]
    branch: Vec<f32>,    // [rows, hidden], and its gradient
    projected: Vec<f32>, // [rows, (heads + 2 · kv_heads) · head_dim]
    d_grouped: Vec<f32>, // as `projected`
    heads: Vec<f32>,     // [rows, heads · head_dim]
    gated: Vec<f32>,     // [rows, intermediate]
    d_gated: Vec<f32>,   // [rows, intermediate]
    scores: Vec<f32>,    // attention's tiles
    partial: Vec<f32>,   // [⌈rows / BLOCK⌉, widest norm]
    room: Room,
}

/// For whom a layer runs, and what its contribution is multiplied by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    pub(crate) kept: Kept<'a>,
    pub(crate) scale: f32,
}

impl Activations {
    /// Room for `samples` of `length` tokens.
    pub(crate) fn new(geometry: &Geometry, samples: usize, length: usize) -> Self {
        let (rows, heads) = (samples * length, geometry.heads(length));
        let sub_normed = if geometry.bit_linear.is_some() { rows } else { 0 };
        Self {
            input_inv_rms: vec![0.0; rows],
            grouped: vec![0.0; rows * heads.row()],
            attended: vec![0.0; rows * heads.queries()],
            attn_sub_inv_rms: vec![0.0; sub_normed],
            middle: vec![0.0; rows * geometry.hidden],
            post_attention_inv_rms: vec![0.0; rows],
            gate_up: vec![0.0; rows * 2 * geometry.intermediate],
            ffn_sub_inv_rms: vec![0.0; sub_normed],
        }
    }
}

/// Values that [`Activations`] hold for a row.
pub(crate) fn kept_floats(geometry: &Geometry) -> u128 {
    let heads = geometry.heads(1);
    let sub_norms = if geometry.bit_linear.is_some() { 2 } else { 0 };
    let widths =
        [heads.row(), heads.queries(), geometry.hidden, geometry.intermediate, geometry.intermediate];
    2 + sub_norms + widths.map(|width| width as u128).iter().sum::<u128>()
}

/// Values that [`Scratch`] holds for `samples` of `length` tokens.
pub(crate) fn shared_floats(geometry: &Geometry, samples: u128, length: u128) -> u128 {
    let (rows, heads) = (samples * length, geometry.heads(1));
    let (hidden, inner) = (geometry.hidden as u128, geometry.intermediate as u128);
    let widest = geometry.widest() as u128;
    let (low_bit, widest_norm) = match geometry.bit_linear {
        Some(_) => (2 * widest + 1, widest),
        None => (0, hidden),
    };
    let widths = 3 * hidden + 2 * heads.row() as u128 + heads.queries() as u128 + 2 * inner + low_bit;
    // `scratch_len` of one token of one sample is that of all, divided.
    let scores = crate::ops::attention::scratch_len(1, heads) as u128 * rows;
    rows * widths + scores + rows.div_ceil(BLOCK as u128) * widest_norm
}

impl Scratch {
    /// Room for `samples` of `length` tokens.
    pub(crate) fn new(geometry: &Geometry, samples: usize, length: usize) -> Self {
        let (rows, heads) = (samples * length, geometry.heads(length));
        let room = |width: usize| vec![0.0; rows * width];
        let widest_norm = if geometry.bit_linear.is_some() { geometry.widest() } else { geometry.hidden };
        Self {
            normed: room(geometry.hidden),
            d_normed: room(geometry.hidden),
            branch: room(geometry.hidden),
            projected: room(heads.row()),
            d_grouped: room(heads.row()),
            heads: room(heads.queries()),
            gated: room(geometry.intermediate),
            d_gated: room(geometry.intermediate),
            scores: vec![0.0; crate::ops::attention::scratch_len(samples, heads)],
            partial: vec![0.0; rows.div_ceil(BLOCK) * widest_norm],
            room: Room::new(geometry, rows),
        }
    }
}

/// `out = x + scale · (layer(x) − x)` for kept samples, `out = x` for the others.
///
/// # Shapes
/// `x`, `out`: `[samples · length, hidden]`
pub(crate) fn forward(
    (geometry, weights): (&Geometry, LayerWeights<'_>),
    route: Route<'_>,
    x: &[f32],
    activations: &mut Activations,
    scratch: &mut Scratch,
    out: &mut [f32],
) {
    let Route { kept, scale } = route;
    let (hidden, rows, clock) = (geometry.hidden, kept.rows(), &geometry.clock);
    if rows == 0 {
        out.copy_from_slice(x);
        return;
    }
    let all: Vec<usize> = (0..kept.samples.len()).collect();
    let compact = Kept { samples: &all, length: kept.length };
    attention::forward((geometry, weights), (x, kept, compact), activations, scratch);
    let middle = &mut activations.middle[..rows * hidden];
    let branch = &scratch.branch[..rows * hidden];
    clock.time(Op::Residual, Way::Forward, 0.0, || residual::gather(x, kept, hidden, branch, middle));
    feed_forward::forward((geometry, weights), compact, activations, scratch);
    let (middle, branch) = (&activations.middle[..rows * hidden], &scratch.branch[..rows * hidden]);
    let work = || residual::scatter(x, (kept, hidden), (middle, branch), scale, out);
    clock.time(Op::Residual, Way::Forward, 0.0, work);
}

/// Replaces `d`, the gradient of the layer's output, by that of its input, and adds to `gradients`. Uses
/// up the activations.
///
/// # Shapes
/// `x`, `d`: `[samples · length, hidden]`, `x` as the forward had it
pub(crate) fn backward(
    (geometry, weights, mut gradients): (&Geometry, LayerWeights<'_>, LayerGradients<'_>),
    route: Route<'_>,
    x: &[f32],
    activations: &mut Activations,
    scratch: &mut Scratch,
    d: &mut [f32],
) {
    let Route { kept, scale } = route;
    let (hidden, rows, clock) = (geometry.hidden, kept.rows(), &geometry.clock);
    if rows == 0 {
        return;
    }
    let all: Vec<usize> = (0..kept.samples.len()).collect();
    let compact = Kept { samples: &all, length: kept.length };
    clock.time(Op::Residual, Way::Backward, 0.0, || {
        residual::scatter_backward(d, kept, hidden, scale, &mut scratch.branch[..rows * hidden]);
    });
    feed_forward::backward((geometry, weights), &mut gradients, compact, activations, scratch);
    attention::backward((geometry, weights, gradients), (x, kept, compact), activations, scratch);
    clock.time(Op::Residual, Way::Backward, 0.0, || {
        residual::gather_backward(&scratch.branch[..rows * hidden], kept, hidden, scale, d);
    });
}

impl<'a> LayerWeights<'a> {
    fn qkv(&self, in_features: usize) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.qkv_proj);
        Projection { op: Op::QkvProj, weight: self.qkv_proj, ternary, in_features }
    }

    fn o(&self, in_features: usize) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.o_proj);
        Projection { op: Op::OProj, weight: self.o_proj, ternary, in_features }
    }

    fn gate_up(&self, in_features: usize) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.gate_up_proj);
        Projection { op: Op::GateUpProj, weight: self.gate_up_proj, ternary, in_features }
    }

    fn down(&self, in_features: usize) -> Projection<'a> {
        let ternary = self.ternary.map(|layer| layer.down_proj);
        Projection { op: Op::DownProj, weight: self.down_proj, ternary, in_features }
    }
}
