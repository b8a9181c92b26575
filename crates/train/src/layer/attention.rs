//! The first half of a layer: norm, queries, keys and values, attention, and `o_proj`.

use super::buffers::Buffers;
use super::context::{Context, Input};
use super::products::BackwardRows;
use crate::ops::head_norm::{self, HeadNormGradients, NormedHeads};
use crate::ops::rms_norm::{self, Normed};
use crate::ops::{attention, heads};
use crate::parameters::LinearGradients;
use crate::profile::{Op, Pass};

/// Leaves what this half adds to the stream in `scratch.branch`.
pub(super) fn forward(context: Context<'_>, input: Input<'_>, buffers: &mut Buffers<'_>) {
    let Context { sizes, rotary, products, weights, .. } = context;
    let Input { x, kept, compact } = input;
    let Buffers { activations, scratch } = buffers;
    let (hidden, rows, sizes) = (sizes.hidden, kept.rows(), sizes.heads(kept.length));
    let clock = &products.clock;
    let branch = &mut scratch.branch[..rows * hidden];
    let normed = &mut scratch.normed[..rows * hidden];
    let inv_rms = &mut activations.input_inv_rms[..rows];
    clock.time(Op::Norms, Pass::Forward, 0.0, || {
        rms_norm::forward(x, kept, weights.input_layernorm, products.eps, normed, inv_rms);
    });
    let projected = &mut scratch.projected[..rows * sizes.row()];
    match context.head_norms() {
        None => products.forward(context.qkv_proj(), normed, &mut scratch.products, projected),
        Some(norms) => {
            let raw = &mut activations.projected[..rows * sizes.row()];
            products.forward(context.qkv_proj(), normed, &mut scratch.products, raw);
            let inv_rms = &mut activations.head_inv_rms[..rows * sizes.normed()];
            let work = || head_norm::forward(raw, sizes, norms, products.eps, projected, inv_rms);
            clock.time(Op::Norms, Pass::Forward, 0.0, work);
        }
    }
    let grouped = &mut activations.grouped[..rows * sizes.row()];
    let rotary = context.attention.rotates.then(|| rotary.forward());
    clock.time(Op::Heads, Pass::Forward, 0.0, || heads::forward(projected, sizes, rotary, grouped));
    let heads = &mut scratch.heads[..rows * sizes.queries()];
    let attention = context.attention(kept.length);
    let work = || attention::forward(grouped, attention, &mut scratch.scores, heads);
    clock.time(Op::Attention, Pass::Forward, attention::flops(kept.samples.len(), attention), work);
    let attended = &mut activations.attended[..rows * sizes.queries()];
    clock.time(Op::Heads, Pass::Forward, 0.0, || heads::merge(heads, sizes, attended));
    let o_proj = context.o_proj();
    if weights.attn_sub_norm.is_empty() {
        products.forward(o_proj, attended, &mut scratch.products, branch);
    } else {
        // `heads` is merged, so its buffer is free.
        let inv_rms = &mut activations.attn_sub_inv_rms[..rows];
        products.sub_norm_forward(attended, compact, weights.attn_sub_norm, heads, inv_rms);
        products.forward(o_proj, heads, &mut scratch.products, branch);
    }
}

/// The gradients of this half's weights.
pub(super) struct AttentionGradients<'a> {
    pub(super) input_layernorm: &'a mut [f32],
    pub(super) qkv_proj: LinearGradients<'a>,
    pub(super) q_norm: &'a mut [f32],
    pub(super) k_norm: &'a mut [f32],
    pub(super) attn_sub_norm: &'a mut [f32],
    pub(super) o_proj: LinearGradients<'a>,
}

/// Replaces `scratch.branch`, the gradient of the stream after this half, by the gradient of the layer's
/// input.
pub(super) fn backward(
    context: Context<'_>,
    gradients: AttentionGradients<'_>,
    input: Input<'_>,
    buffers: &mut Buffers<'_>,
) {
    let Context { sizes, rotary, products, weights, .. } = context;
    let Input { x, kept, compact } = input;
    let Buffers { activations, scratch } = buffers;
    let (hidden, rows, sizes) = (sizes.hidden, kept.rows(), sizes.heads(kept.length));
    let clock = &products.clock;
    let d_x = &mut scratch.branch[..rows * hidden];
    let attended = &activations.attended[..rows * sizes.queries()];
    let mut d_attended = &mut scratch.heads[..rows * sizes.queries()];
    let (o_proj, d_o_proj) = (context.o_proj(), gradients.o_proj);
    if weights.attn_sub_norm.is_empty() {
        let rows = BackwardRows { x: attended, d_out: d_x, d_x: d_attended };
        products.backward(o_proj, d_o_proj, rows, &mut scratch.products);
    } else {
        let normed = &mut scratch.sub_normed[..rows * sizes.queries()];
        let inv_rms = &activations.attn_sub_inv_rms[..rows];
        let norm = Normed { x: attended, kept: compact, weight: weights.attn_sub_norm, inv_rms };
        products.sub_norm_recompute(norm, normed);
        let rows = BackwardRows { x: normed, d_out: d_x, d_x: d_attended };
        products.backward(o_proj, d_o_proj, rows, &mut scratch.products);
        let d_norm = gradients.attn_sub_norm;
        products.sub_norm_backward(norm, d_attended, normed, d_norm, &mut scratch.partial);
        d_attended = normed;
    }
    let grouped = &activations.grouped[..rows * sizes.row()];
    let d_grouped = &mut scratch.d_grouped[..rows * sizes.row()];
    let attention = context.attention(kept.length);
    let flops = 2.0 * attention::flops(kept.samples.len(), attention);
    clock.time(Op::Attention, Pass::Backward, flops, || {
        attention::backward(grouped, attention, d_attended, &mut scratch.scores, d_grouped);
    });
    let mut d_projected = &mut scratch.projected[..rows * sizes.row()];
    let inverse = context.attention.rotates.then(|| rotary.inverse());
    clock.time(Op::Heads, Pass::Backward, 0.0, || heads::backward(d_grouped, sizes, inverse, d_projected));
    if let Some(norms) = context.head_norms() {
        let inv_rms = &activations.head_inv_rms[..rows * sizes.normed()];
        let normed = NormedHeads { x: &activations.projected[..rows * sizes.row()], norms, inv_rms };
        let d_norms = HeadNormGradients { q: gradients.q_norm, k: gradients.k_norm };
        let partial = &mut scratch.partial;
        // The gradient of `grouped` is used up, so its buffer is free.
        let work = || head_norm::backward(normed, sizes, d_projected, d_grouped, d_norms, partial);
        clock.time(Op::Norms, Pass::Backward, 0.0, work);
        d_projected = d_grouped;
    }

    let (normed, d_normed) = (&mut scratch.normed[..rows * hidden], &mut scratch.d_normed[..rows * hidden]);
    let (weight, inv_rms) = (weights.input_layernorm, &activations.input_inv_rms[..rows]);
    clock.time(Op::Norms, Pass::Backward, 0.0, || rms_norm::recompute(x, kept, weight, inv_rms, normed));
    let rows = BackwardRows { x: normed, d_out: d_projected, d_x: d_normed };
    products.backward(context.qkv_proj(), gradients.qkv_proj, rows, &mut scratch.products);
    let normed = Normed { x, kept, weight, inv_rms };
    let d_norm = gradients.input_layernorm;
    let work = || rms_norm::backward(normed, d_normed, d_x, d_norm, &mut scratch.partial);
    clock.time(Op::Norms, Pass::Backward, 0.0, work);
}
