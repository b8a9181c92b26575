//! One decoder layer: the way there, which keeps what the way back needs, and the way back.

use crate::ops::heads::{HeadShape, Rotary};
use crate::ops::{BLOCK, Kept, attention, heads, linear, residual, rms_norm, swiglu};
use crate::parameters::{LayerGradients, LayerWeights};
use crate::profile::{Clock, Op, Way, product};
use offramp_kernels::gemm::Factors;
use offramp_model::Config;

/// What a layer keeps of its way there; all compact, for the samples that were kept.
///
/// The outputs of norms and of SwiGLU are not among it: making them again costs a pass over memory, as
/// reading them would, and a third of the room.
#[derive(Debug)]
pub(crate) struct Activations {
    input_inv_rms: Vec<f32>,          // [rows]
    grouped: Vec<f32>,                // [samples, kv_heads, group + 2, length, head_dim], turned
    attended: Vec<f32>,               // [rows, heads · head_dim]
    middle: Vec<f32>,                 // [rows, hidden], the stream between attention and feed-forward
    post_attention_inv_rms: Vec<f32>, // [rows]
    gate_up: Vec<f32>,                // [rows, 2 · intermediate]
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
    partial: Vec<f32>,   // [⌈rows / BLOCK⌉, hidden]
}

/// Sizes, angles, and how products are made and timed: the same for every layer.
#[derive(Debug)]
pub(crate) struct Geometry {
    hidden: usize,
    intermediate: usize,
    eps: f32,
    kv_heads: usize,
    group: usize,
    head_dim: usize,
    cos: Vec<f32>,       // [positions, head_dim / 2]
    sin: Vec<f32>,       // as `cos`
    minus_sin: Vec<f32>, // as `cos`
    pub(crate) factors: Factors,
    pub(crate) clock: Clock,
}

/// For whom a layer runs, and what its contribution is multiplied by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    pub(crate) kept: Kept<'a>,
    pub(crate) scale: f32,
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
            clock: Clock::new(),
        }
    }

    fn heads(&self, length: usize) -> HeadShape {
        HeadShape { kv_heads: self.kv_heads, group: self.group, head_dim: self.head_dim, length }
    }

    /// `out = x · weightᵀ`.
    fn project(&self, op: Op, x: &[f32], (weight, in_features): (&[f32], usize), out: &mut [f32]) {
        let flops = product(x.len() / in_features, in_features, weight.len() / in_features);
        let work = || linear::forward(x, weight, in_features, self.factors, out);
        self.clock.time(op, Way::Forward, flops, work);
    }

    /// `d_x = d_out · weight`, and `d_weight += d_outᵀ · x`.
    fn project_back(&self, op: Op, d_out: &[f32], (x, d_x): (&[f32], &mut [f32]), weight: Projection<'_>) {
        let Projection { weight, d_weight, in_features } = weight;
        let flops = 2.0 * product(x.len() / in_features, in_features, weight.len() / in_features);
        let how = (1.0, self.factors);
        self.clock.time(op, Way::Backward, flops, || {
            linear::backward_weight(d_out, x, in_features, how, d_weight);
            linear::backward_input(d_out, weight, in_features, how, d_x);
        });
    }

    fn there(&self) -> Rotary<'_> {
        Rotary { cos: &self.cos, sin: &self.sin }
    }

    fn back(&self) -> Rotary<'_> {
        Rotary { cos: &self.cos, sin: &self.minus_sin }
    }
}

/// A matrix on the way back.
struct Projection<'a> {
    weight: &'a [f32],
    d_weight: &'a mut [f32],
    in_features: usize,
}

impl Activations {
    /// Room for `samples` of `length` tokens.
    pub(crate) fn new(geometry: &Geometry, samples: usize, length: usize) -> Self {
        let (rows, heads) = (samples * length, geometry.heads(length));
        Self {
            input_inv_rms: vec![0.0; rows],
            grouped: vec![0.0; rows * heads.row()],
            attended: vec![0.0; rows * heads.queries()],
            middle: vec![0.0; rows * geometry.hidden],
            post_attention_inv_rms: vec![0.0; rows],
            gate_up: vec![0.0; rows * 2 * geometry.intermediate],
        }
    }
}

impl Scratch {
    /// Room for `samples` of `length` tokens.
    pub(crate) fn new(geometry: &Geometry, samples: usize, length: usize) -> Self {
        let (rows, heads) = (samples * length, geometry.heads(length));
        let room = |width: usize| vec![0.0; rows * width];
        Self {
            normed: room(geometry.hidden),
            d_normed: room(geometry.hidden),
            branch: room(geometry.hidden),
            projected: room(heads.row()),
            d_grouped: room(heads.row()),
            heads: room(heads.queries()),
            gated: room(geometry.intermediate),
            d_gated: room(geometry.intermediate),
            scores: vec![0.0; attention::scratch_len(samples, heads)],
            partial: vec![0.0; rows.div_ceil(BLOCK) * geometry.hidden],
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
    let Geometry { hidden, intermediate, eps, .. } = *geometry;
    let Route { kept, scale } = route;
    let rows = kept.rows();
    if rows == 0 {
        out.copy_from_slice(x);
        return;
    }
    let shape = geometry.heads(kept.length);
    let middle = &mut activations.middle[..rows * hidden];
    let branch = &mut scratch.branch[..rows * hidden];
    let normed = &mut scratch.normed[..rows * hidden];

    let inv_rms = &mut activations.input_inv_rms[..rows];
    let clock = &geometry.clock;
    clock.time(Op::Norms, Way::Forward, 0.0, || {
        rms_norm::forward(x, kept, (weights.input_layernorm, eps), normed, inv_rms);
    });
    let projected = &mut scratch.projected[..rows * shape.row()];
    geometry.project(Op::QkvProj, normed, (weights.qkv_proj, hidden), projected);
    let grouped = &mut activations.grouped[..rows * shape.row()];
    let work = || heads::forward(projected, shape, geometry.there(), grouped);
    clock.time(Op::Heads, Way::Forward, 0.0, work);
    let heads = &mut scratch.heads[..rows * shape.queries()];
    let work = || attention::forward(grouped, (shape, geometry.factors), &mut scratch.scores, heads);
    clock.time(Op::Attention, Way::Forward, attention::flops(kept.samples.len(), shape), work);
    let attended = &mut activations.attended[..rows * shape.queries()];
    clock.time(Op::Heads, Way::Forward, 0.0, || heads::merge(heads, shape, attended));
    geometry.project(Op::OProj, attended, (weights.o_proj, shape.queries()), branch);
    clock.time(Op::Residual, Way::Forward, 0.0, || residual::gather(x, kept, hidden, branch, middle));

    let all: Vec<usize> = (0..kept.samples.len()).collect();
    let compact = Kept { samples: &all, length: kept.length };
    let inv_rms = &mut activations.post_attention_inv_rms[..rows];
    clock.time(Op::Norms, Way::Forward, 0.0, || {
        rms_norm::forward(middle, compact, (weights.post_attention_layernorm, eps), normed, inv_rms);
    });
    let gate_up = &mut activations.gate_up[..rows * 2 * intermediate];
    geometry.project(Op::GateUpProj, normed, (weights.gate_up_proj, hidden), gate_up);
    let gated = &mut scratch.gated[..rows * intermediate];
    clock.time(Op::Swiglu, Way::Forward, 0.0, || swiglu::forward(gate_up, intermediate, gated));
    geometry.project(Op::DownProj, gated, (weights.down_proj, intermediate), branch);
    let work = || residual::scatter(x, (kept, hidden), (middle, branch), scale, out);
    clock.time(Op::Residual, Way::Forward, 0.0, work);
}

/// Replaces `d`, the gradient of the layer's output, by that of its input, and adds to `gradients`. Uses
/// up the activations.
///
/// # Shapes
/// `x`, `d`: `[samples · length, hidden]`, `x` as the forward had it
pub(crate) fn backward(
    (geometry, weights, gradients): (&Geometry, LayerWeights<'_>, LayerGradients<'_>),
    route: Route<'_>,
    x: &[f32],
    activations: &mut Activations,
    scratch: &mut Scratch,
    d: &mut [f32],
) {
    let Geometry { hidden, .. } = *geometry;
    let Route { kept, scale } = route;
    let rows = kept.rows();
    if rows == 0 {
        return;
    }
    let clock = &geometry.clock;
    clock.time(Op::Residual, Way::Backward, 0.0, || {
        residual::scatter_backward(d, kept, hidden, scale, &mut scratch.branch[..rows * hidden]);
    });
    let LayerGradients { input_layernorm, qkv_proj, o_proj, .. } = gradients;
    let feed_forward_gradients =
        (gradients.post_attention_layernorm, gradients.gate_up_proj, gradients.down_proj);
    feed_forward_backward((geometry, weights, feed_forward_gradients), kept, activations, scratch);
    let attention_gradients = (input_layernorm, qkv_proj, o_proj);
    attention_backward((geometry, weights, attention_gradients), (x, kept), activations, scratch);
    clock.time(Op::Residual, Way::Backward, 0.0, || {
        residual::gather_backward(&scratch.branch[..rows * hidden], kept, hidden, scale, d);
    });
}

type ThreeGradients<'a> = (&'a mut [f32], &'a mut [f32], &'a mut [f32]);

/// Turns `scratch.branch` from the gradient of the layer's output into that of `middle`.
fn feed_forward_backward(
    (geometry, weights, (d_norm, d_gate_up_proj, d_down_proj)): (
        &Geometry,
        LayerWeights<'_>,
        ThreeGradients<'_>,
    ),
    kept: Kept<'_>,
    activations: &mut Activations,
    scratch: &mut Scratch,
) {
    let Geometry { hidden, intermediate, .. } = *geometry;
    let rows = kept.rows();
    let d_middle = &mut scratch.branch[..rows * hidden];
    let gate_up = &mut activations.gate_up[..rows * 2 * intermediate];
    let (gated, d_gated) =
        (&mut scratch.gated[..rows * intermediate], &mut scratch.d_gated[..rows * intermediate]);
    let clock = &geometry.clock;
    clock.time(Op::Swiglu, Way::Backward, 0.0, || swiglu::forward(gate_up, intermediate, gated));
    let down = Projection { weight: weights.down_proj, d_weight: d_down_proj, in_features: intermediate };
    geometry.project_back(Op::DownProj, d_middle, (gated, d_gated), down);
    clock.time(Op::Swiglu, Way::Backward, 0.0, || swiglu::backward(gate_up, intermediate, d_gated));

    let all: Vec<usize> = (0..kept.samples.len()).collect();
    let compact = Kept { samples: &all, length: kept.length };
    let (normed, d_normed) = (&mut scratch.normed[..rows * hidden], &mut scratch.d_normed[..rows * hidden]);
    let (middle, inv_rms) =
        (&activations.middle[..rows * hidden], &activations.post_attention_inv_rms[..rows]);
    let weight = weights.post_attention_layernorm;
    let work = || rms_norm::again(middle, compact, weight, inv_rms, normed);
    clock.time(Op::Norms, Way::Backward, 0.0, work);
    let gate_up_proj =
        Projection { weight: weights.gate_up_proj, d_weight: d_gate_up_proj, in_features: hidden };
    geometry.project_back(Op::GateUpProj, gate_up, (normed, d_normed), gate_up_proj);
    let normed = rms_norm::Normed { x: middle, kept: compact, weight, inv_rms };
    let work = || rms_norm::backward(normed, d_normed, d_middle, d_norm, &mut scratch.partial);
    clock.time(Op::Norms, Way::Backward, 0.0, work);
}

/// Turns `scratch.branch` from the gradient of `middle` into that of the layer's input.
fn attention_backward(
    (geometry, weights, (d_norm, d_qkv_proj, d_o_proj)): (&Geometry, LayerWeights<'_>, ThreeGradients<'_>),
    (x, kept): (&[f32], Kept<'_>),
    activations: &mut Activations,
    scratch: &mut Scratch,
) {
    let (hidden, rows, shape) = (geometry.hidden, kept.rows(), geometry.heads(kept.length));
    let d_x = &mut scratch.branch[..rows * hidden];
    let attended = &activations.attended[..rows * shape.queries()];
    let d_attended = &mut scratch.heads[..rows * shape.queries()];
    let o_proj = Projection { weight: weights.o_proj, d_weight: d_o_proj, in_features: shape.queries() };
    geometry.project_back(Op::OProj, d_x, (attended, d_attended), o_proj);
    let grouped = &activations.grouped[..rows * shape.row()];
    let d_grouped = &mut scratch.d_grouped[..rows * shape.row()];
    let clock = &geometry.clock;
    clock.time(Op::Attention, Way::Backward, 2.0 * attention::flops(kept.samples.len(), shape), || {
        let how = (shape, geometry.factors);
        attention::backward(grouped, how, d_attended, &mut scratch.scores, d_grouped);
    });
    let d_projected = &mut scratch.projected[..rows * shape.row()];
    let work = || heads::backward(d_grouped, shape, geometry.back(), d_projected);
    clock.time(Op::Heads, Way::Backward, 0.0, work);

    let (normed, d_normed) = (&mut scratch.normed[..rows * hidden], &mut scratch.d_normed[..rows * hidden]);
    let (weight, inv_rms) = (weights.input_layernorm, &activations.input_inv_rms[..rows]);
    clock.time(Op::Norms, Way::Backward, 0.0, || rms_norm::again(x, kept, weight, inv_rms, normed));
    let qkv_proj = Projection { weight: weights.qkv_proj, d_weight: d_qkv_proj, in_features: hidden };
    geometry.project_back(Op::QkvProj, d_projected, (normed, d_normed), qkv_proj);
    let normed = rms_norm::Normed { x, kept, weight, inv_rms };
    let work = || rms_norm::backward(normed, d_normed, d_x, d_norm, &mut scratch.partial);
    clock.time(Op::Norms, Way::Backward, 0.0, work);
}
