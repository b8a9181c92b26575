//! The first half of a layer: norm, queries, keys and values, attention, and back to the stream.

use super::{Activations, Geometry, Scratch};
use crate::ops::rms_norm::{self, Normed};
use crate::ops::{Kept, attention, heads};
use crate::parameters::{LayerGradients, LayerWeights};
use crate::profile::{Op, Way};

/// Leaves what the half adds to the stream in `scratch.branch`.
pub(super) fn forward(
    (geometry, weights): (&Geometry, LayerWeights<'_>),
    (x, kept, compact): (&[f32], Kept<'_>, Kept<'_>),
    activations: &mut Activations,
    scratch: &mut Scratch,
) {
    let (hidden, eps, rows) = (geometry.hidden, geometry.eps, kept.rows());
    let (shape, clock) = (geometry.heads(kept.length), &geometry.clock);
    let branch = &mut scratch.branch[..rows * hidden];
    let normed = &mut scratch.normed[..rows * hidden];
    let inv_rms = &mut activations.input_inv_rms[..rows];
    clock.time(Op::Norms, Way::Forward, 0.0, || {
        rms_norm::forward(x, kept, (weights.input_layernorm, eps), normed, inv_rms);
    });
    let projected = &mut scratch.projected[..rows * shape.row()];
    geometry.project(weights.qkv(hidden), normed, &mut scratch.room, projected);
    let grouped = &mut activations.grouped[..rows * shape.row()];
    let work = || heads::forward(projected, shape, geometry.there(), grouped);
    clock.time(Op::Heads, Way::Forward, 0.0, work);
    let heads = &mut scratch.heads[..rows * shape.queries()];
    let work = || attention::forward(grouped, (shape, geometry.factors), &mut scratch.scores, heads);
    clock.time(Op::Attention, Way::Forward, attention::flops(kept.samples.len(), shape), work);
    let attended = &mut activations.attended[..rows * shape.queries()];
    clock.time(Op::Heads, Way::Forward, 0.0, || heads::merge(heads, shape, attended));
    let o_proj = weights.o(shape.queries());
    if weights.attn_sub_norm.is_empty() {
        geometry.project(o_proj, attended, &mut scratch.room, branch);
    } else {
        // What attention left in its own order is merged already: there is room.
        let inv_rms = &mut activations.attn_sub_inv_rms[..rows];
        geometry.sub_norm((attended, compact), weights.attn_sub_norm, heads, inv_rms);
        geometry.project(o_proj, heads, &mut scratch.room, branch);
    }
}

/// Turns `scratch.branch` from the gradient of the stream after this half into that of the layer's input.
pub(super) fn backward(
    (geometry, weights, gradients): (&Geometry, LayerWeights<'_>, LayerGradients<'_>),
    (x, kept, compact): (&[f32], Kept<'_>, Kept<'_>),
    activations: &mut Activations,
    scratch: &mut Scratch,
) {
    let (hidden, rows, shape) = (geometry.hidden, kept.rows(), geometry.heads(kept.length));
    let d_x = &mut scratch.branch[..rows * hidden];
    let attended = &activations.attended[..rows * shape.queries()];
    let mut d_attended = &mut scratch.heads[..rows * shape.queries()];
    let o_proj = (weights.o(shape.queries()), gradients.o_proj);
    let mut sub_normed = std::mem::take(&mut scratch.room.normed); // beside the rest of the room
    if weights.attn_sub_norm.is_empty() {
        geometry.project_back(o_proj, d_x, (attended, d_attended), &mut scratch.room);
    } else {
        let normed = &mut sub_normed[..rows * shape.queries()];
        let inv_rms = &activations.attn_sub_inv_rms[..rows];
        let norm = Normed { x: attended, kept: compact, weight: weights.attn_sub_norm, inv_rms };
        geometry.sub_norm_again(norm, normed);
        geometry.project_back(o_proj, d_x, (normed, d_attended), &mut scratch.room);
        let sums = (gradients.attn_sub_norm, &mut scratch.partial[..]);
        geometry.sub_norm_back(norm, d_attended, normed, sums);
        d_attended = normed;
    }
    let grouped = &activations.grouped[..rows * shape.row()];
    let d_grouped = &mut scratch.d_grouped[..rows * shape.row()];
    let clock = &geometry.clock;
    clock.time(Op::Attention, Way::Backward, 2.0 * attention::flops(kept.samples.len(), shape), || {
        let how = (shape, geometry.factors);
        attention::backward(grouped, how, d_attended, &mut scratch.scores, d_grouped);
    });
    scratch.room.normed = sub_normed;
    let d_projected = &mut scratch.projected[..rows * shape.row()];
    let work = || heads::backward(d_grouped, shape, geometry.back(), d_projected);
    clock.time(Op::Heads, Way::Backward, 0.0, work);

    let (normed, d_normed) = (&mut scratch.normed[..rows * hidden], &mut scratch.d_normed[..rows * hidden]);
    let (weight, inv_rms) = (weights.input_layernorm, &activations.input_inv_rms[..rows]);
    clock.time(Op::Norms, Way::Backward, 0.0, || rms_norm::again(x, kept, weight, inv_rms, normed));
    let qkv_proj = (weights.qkv(hidden), gradients.qkv_proj);
    geometry.project_back(qkv_proj, d_projected, (normed, d_normed), &mut scratch.room);
    let normed = Normed { x, kept, weight, inv_rms };
    let d_norm = gradients.input_layernorm;
    let work = || rms_norm::backward(normed, d_normed, d_x, d_norm, &mut scratch.partial);
    clock.time(Op::Norms, Way::Backward, 0.0, work);
}
