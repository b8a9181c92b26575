//! The second half of a layer: norm, gate and up, SwiGLU, down.

use super::{Activations, Geometry, Scratch};
use crate::ops::rms_norm::{self, Normed};
use crate::ops::{Kept, swiglu};
use crate::parameters::{LayerGradients, LayerWeights};
use crate::profile::{Op, Way};

/// Leaves what the half adds to the stream in `scratch.branch`.
pub(super) fn forward(
    (geometry, weights): (&Geometry, LayerWeights<'_>),
    compact: Kept<'_>,
    activations: &mut Activations,
    scratch: &mut Scratch,
) {
    let Geometry { hidden, intermediate, eps, .. } = *geometry;
    let (rows, clock) = (compact.rows(), &geometry.clock);
    let middle = &activations.middle[..rows * hidden];
    let branch = &mut scratch.branch[..rows * hidden];
    let normed = &mut scratch.normed[..rows * hidden];
    let inv_rms = &mut activations.post_attention_inv_rms[..rows];
    clock.time(Op::Norms, Way::Forward, 0.0, || {
        rms_norm::forward(middle, compact, (weights.post_attention_layernorm, eps), normed, inv_rms);
    });
    let gate_up = &mut activations.gate_up[..rows * 2 * intermediate];
    geometry.project(weights.gate_up(hidden), normed, &mut scratch.room, gate_up);
    let gated = &mut scratch.gated[..rows * intermediate];
    clock.time(Op::Swiglu, Way::Forward, 0.0, || swiglu::forward(gate_up, intermediate, gated));
    let down_proj = weights.down(intermediate);
    if weights.ffn_sub_norm.is_empty() {
        geometry.project(down_proj, gated, &mut scratch.room, branch);
    } else {
        let sub_normed = &mut scratch.d_gated[..rows * intermediate]; // which is of the way back
        let inv_rms = &mut activations.ffn_sub_inv_rms[..rows];
        geometry.sub_norm((gated, compact), weights.ffn_sub_norm, sub_normed, inv_rms);
        geometry.project(down_proj, sub_normed, &mut scratch.room, branch);
    }
}

/// Turns `scratch.branch` from the gradient of the layer's output into that of `middle`.
pub(super) fn backward(
    (geometry, weights): (&Geometry, LayerWeights<'_>),
    gradients: &mut LayerGradients<'_>,
    compact: Kept<'_>,
    activations: &mut Activations,
    scratch: &mut Scratch,
) {
    let Geometry { hidden, intermediate, .. } = *geometry;
    let rows = compact.rows();
    let d_middle = &mut scratch.branch[..rows * hidden];
    let gate_up = &mut activations.gate_up[..rows * 2 * intermediate];
    let gated = &mut scratch.gated[..rows * intermediate];
    let mut d_gated = &mut scratch.d_gated[..rows * intermediate];
    let clock = &geometry.clock;
    clock.time(Op::Swiglu, Way::Backward, 0.0, || swiglu::forward(gate_up, intermediate, gated));
    let down_proj = (weights.down(intermediate), &mut *gradients.down_proj);
    let mut sub_normed = std::mem::take(&mut scratch.room.normed); // beside the rest of the room
    if weights.ffn_sub_norm.is_empty() {
        geometry.project_back(down_proj, d_middle, (gated, d_gated), &mut scratch.room);
    } else {
        let normed = &mut sub_normed[..rows * intermediate];
        let inv_rms = &activations.ffn_sub_inv_rms[..rows];
        let norm = Normed { x: gated, kept: compact, weight: weights.ffn_sub_norm, inv_rms };
        geometry.sub_norm_again(norm, normed);
        geometry.project_back(down_proj, d_middle, (normed, d_gated), &mut scratch.room);
        let sums = (&mut *gradients.ffn_sub_norm, &mut scratch.partial[..]);
        geometry.sub_norm_back(norm, d_gated, normed, sums);
        d_gated = normed;
    }
    clock.time(Op::Swiglu, Way::Backward, 0.0, || swiglu::backward(gate_up, intermediate, d_gated));
    scratch.room.normed = sub_normed;

    let (normed, d_normed) = (&mut scratch.normed[..rows * hidden], &mut scratch.d_normed[..rows * hidden]);
    let (middle, inv_rms) =
        (&activations.middle[..rows * hidden], &activations.post_attention_inv_rms[..rows]);
    let weight = weights.post_attention_layernorm;
    let work = || rms_norm::again(middle, compact, weight, inv_rms, normed);
    clock.time(Op::Norms, Way::Backward, 0.0, work);
    let gate_up_proj = (weights.gate_up(hidden), &mut *gradients.gate_up_proj);
    geometry.project_back(gate_up_proj, gate_up, (normed, d_normed), &mut scratch.room);
    let normed = Normed { x: middle, kept: compact, weight, inv_rms };
    let d_norm = &mut *gradients.post_attention_layernorm;
    let work = || rms_norm::backward(normed, d_normed, d_middle, d_norm, &mut scratch.partial);
    clock.time(Op::Norms, Way::Backward, 0.0, work);
}
