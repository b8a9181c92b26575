//! The second half of a layer: norm, gate and up, SwiGLU, `down_proj`.

use super::buffers::Buffers;
use super::context::Context;
use super::products::BackwardRows;
use crate::ops::rms_norm::{self, Normed};
use crate::ops::{Kept, swiglu};
use crate::parameters::LinearGradients;
use crate::profile::{Op, Pass};

/// Leaves what this half adds to the stream in `scratch.branch`.
pub(super) fn forward(context: Context<'_>, compact: Kept<'_>, buffers: &mut Buffers<'_>) {
    let Context { sizes, products, weights, .. } = context;
    let Buffers { activations, scratch } = buffers;
    let (hidden, intermediate, rows) = (sizes.hidden, sizes.intermediate, compact.rows());
    let clock = &products.clock;
    let middle = &activations.middle[..rows * hidden];
    let branch = &mut scratch.branch[..rows * hidden];
    let normed = &mut scratch.normed[..rows * hidden];
    let inv_rms = &mut activations.post_attention_inv_rms[..rows];
    clock.time(Op::Norms, Pass::Forward, 0.0, || {
        let weight = weights.post_attention_layernorm;
        rms_norm::forward(middle, compact, weight, products.eps, normed, inv_rms);
    });
    let gate_up = &mut activations.gate_up[..rows * 2 * intermediate];
    products.forward(context.gate_up_proj(), normed, &mut scratch.products, gate_up);
    let gated = &mut scratch.gated[..rows * intermediate];
    clock.time(Op::Swiglu, Pass::Forward, 0.0, || swiglu::forward(gate_up, intermediate, gated));
    let down_proj = context.down_proj();
    if weights.ffn_sub_norm.is_empty() {
        products.forward(down_proj, gated, &mut scratch.products, branch);
    } else {
        let sub_normed = &mut scratch.d_gated[..rows * intermediate]; // only the backward uses it
        let inv_rms = &mut activations.ffn_sub_inv_rms[..rows];
        products.sub_norm_forward(gated, compact, weights.ffn_sub_norm, sub_normed, inv_rms);
        products.forward(down_proj, sub_normed, &mut scratch.products, branch);
    }
}

/// The gradients of this half's weights.
pub(super) struct FeedForwardGradients<'a> {
    pub(super) post_attention_layernorm: &'a mut [f32],
    pub(super) gate_up_proj: LinearGradients<'a>,
    pub(super) ffn_sub_norm: &'a mut [f32],
    pub(super) down_proj: LinearGradients<'a>,
}

/// Replaces `scratch.branch`, the gradient of the layer's output, by the gradient of `middle`.
pub(super) fn backward(
    context: Context<'_>,
    gradients: FeedForwardGradients<'_>,
    compact: Kept<'_>,
    buffers: &mut Buffers<'_>,
) {
    let Context { sizes, products, weights, .. } = context;
    let Buffers { activations, scratch } = buffers;
    let (hidden, intermediate, rows) = (sizes.hidden, sizes.intermediate, compact.rows());
    let clock = &products.clock;
    let d_middle = &mut scratch.branch[..rows * hidden];
    let gate_up = &mut activations.gate_up[..rows * 2 * intermediate];
    let gated = &mut scratch.gated[..rows * intermediate];
    let mut d_gated = &mut scratch.d_gated[..rows * intermediate];
    clock.time(Op::Swiglu, Pass::Backward, 0.0, || swiglu::forward(gate_up, intermediate, gated));
    let (down_proj, d_down_proj) = (context.down_proj(), gradients.down_proj);
    if weights.ffn_sub_norm.is_empty() {
        let rows = BackwardRows { x: gated, d_out: d_middle, d_x: d_gated };
        products.backward(down_proj, d_down_proj, rows, &mut scratch.products);
    } else {
        let normed = &mut scratch.sub_normed[..rows * intermediate];
        let inv_rms = &activations.ffn_sub_inv_rms[..rows];
        let norm = Normed { x: gated, kept: compact, weight: weights.ffn_sub_norm, inv_rms };
        products.sub_norm_recompute(norm, normed);
        let rows = BackwardRows { x: normed, d_out: d_middle, d_x: d_gated };
        products.backward(down_proj, d_down_proj, rows, &mut scratch.products);
        let d_norm = gradients.ffn_sub_norm;
        products.sub_norm_backward(norm, d_gated, normed, d_norm, &mut scratch.partial);
        d_gated = normed;
    }
    clock.time(Op::Swiglu, Pass::Backward, 0.0, || swiglu::backward(gate_up, intermediate, d_gated));

    let (normed, d_normed) = (&mut scratch.normed[..rows * hidden], &mut scratch.d_normed[..rows * hidden]);
    let middle = &activations.middle[..rows * hidden];
    let inv_rms = &activations.post_attention_inv_rms[..rows];
    let weight = weights.post_attention_layernorm;
    let work = || rms_norm::recompute(middle, compact, weight, inv_rms, normed);
    clock.time(Op::Norms, Pass::Backward, 0.0, work);
    let d_gate_up_proj = gradients.gate_up_proj;
    let rows = BackwardRows { x: normed, d_out: gate_up, d_x: d_normed };
    products.backward(context.gate_up_proj(), d_gate_up_proj, rows, &mut scratch.products);
    let normed = Normed { x: middle, kept: compact, weight, inv_rms };
    let d_norm = gradients.post_attention_layernorm;
    let work = || rms_norm::backward(normed, d_normed, d_middle, d_norm, &mut scratch.partial);
    clock.time(Op::Norms, Pass::Backward, 0.0, work);
}
