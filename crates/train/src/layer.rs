//! One decoder layer: the forward, which keeps what the backward needs, and the backward.

mod attention;
mod buffers;
mod context;
mod feed_forward;
mod products;
mod sizes;

pub(crate) use buffers::{Activations, Buffers, Scratch, kept_floats, shared_floats};
pub(crate) use context::Context;
pub(crate) use products::Products;
pub(crate) use sizes::{RotaryTable, Sizes};

use crate::ops::Kept;
use crate::ops::residual::{self, LayerOutput};
use crate::parameters::LayerGradients;
use crate::profile::{Op, Pass};
use attention::AttentionGradients;
use context::Input;
use feed_forward::FeedForwardGradients;

/// The samples that a layer runs for, and the factor of what it adds to the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route<'a> {
    pub(crate) kept: Kept<'a>,
    pub(crate) scale: f32,
}

/// `out = x + scale · (layer(x) − x)` for kept samples, `out = x` for the others.
///
/// # Shapes
/// `x`, `out`: `[samples · length, hidden]`
pub(crate) fn forward(
    context: Context<'_>,
    route: Route<'_>,
    x: &[f32],
    mut buffers: Buffers<'_>,
    out: &mut [f32],
) {
    let Route { kept, scale } = route;
    let (hidden, rows, clock) = (context.sizes.hidden, kept.rows(), &context.products.clock);
    if rows == 0 {
        residual::copy(x, out);
        return;
    }
    let all: Vec<usize> = (0..kept.samples.len()).collect();
    let compact = Kept { samples: &all, length: kept.length };
    attention::forward(context, Input { x, kept, compact }, &mut buffers);
    let middle = &mut buffers.activations.middle[..rows * hidden];
    let branch = &buffers.scratch.branch[..rows * hidden];
    clock.time(Op::Residual, Pass::Forward, 0.0, || residual::gather(x, kept, hidden, branch, middle));
    feed_forward::forward(context, compact, &mut buffers);
    let middle = &buffers.activations.middle[..rows * hidden];
    let branch = &buffers.scratch.branch[..rows * hidden];
    let output = LayerOutput { middle, branch, scale };
    clock.time(Op::Residual, Pass::Forward, 0.0, || residual::scatter(x, kept, hidden, output, out));
}

/// Replaces `d`, the gradient of the layer's output, by that of its input, and adds to `gradients`. Uses up
/// the activations.
///
/// # Shapes
/// `x`, `d`: `[samples · length, hidden]`; `x` as in the forward
pub(crate) fn backward(
    context: Context<'_>,
    gradients: LayerGradients<'_>,
    route: Route<'_>,
    x: &[f32],
    mut buffers: Buffers<'_>,
    d: &mut [f32],
) {
    let Route { kept, scale } = route;
    let (hidden, rows, clock) = (context.sizes.hidden, kept.rows(), &context.products.clock);
    if rows == 0 {
        return;
    }
    let all: Vec<usize> = (0..kept.samples.len()).collect();
    let compact = Kept { samples: &all, length: kept.length };
    let branch = &mut buffers.scratch.branch[..rows * hidden];
    clock.time(Op::Residual, Pass::Backward, 0.0, || {
        residual::scatter_backward(d, kept, hidden, scale, branch);
    });
    let LayerGradients { input_layernorm, qkv_proj, q_norm, k_norm, attn_sub_norm, o_proj, .. } = gradients;
    let LayerGradients { post_attention_layernorm, gate_up_proj, ffn_sub_norm, down_proj, .. } = gradients;
    let of_feed_forward =
        FeedForwardGradients { post_attention_layernorm, gate_up_proj, ffn_sub_norm, down_proj };
    feed_forward::backward(context, of_feed_forward, compact, &mut buffers);
    let of_attention =
        AttentionGradients { input_layernorm, qkv_proj, q_norm, k_norm, attn_sub_norm, o_proj };
    attention::backward(context, of_attention, Input { x, kept, compact }, &mut buffers);
    let branch = &buffers.scratch.branch[..rows * hidden];
    clock.time(Op::Residual, Pass::Backward, 0.0, || {
        residual::gather_backward(branch, kept, hidden, scale, d);
    });
}
