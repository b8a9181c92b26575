//! The buffers of layers, allocated once: what each layer keeps for its backward, and scratch that all layers
//! share.

use super::sizes::Sizes;
use crate::ops::{BLOCK, attention};

/// What a layer keeps of its forward. All buffers are compact: they hold the kept samples only.
///
/// The outputs of norms and of SwiGLU are not kept. Computing them again costs one pass over memory, as
/// reading them would, and saves a third of the memory.
#[derive(Debug)]
pub(crate) struct Activations {
    pub(super) input_inv_rms: Vec<f32>,          // [rows]
    pub(super) projected: Vec<f32>,              // [rows, row()], or empty where heads are not normed
    pub(super) head_inv_rms: Vec<f32>,           // [rows, heads + kv_heads], or empty as well
    pub(super) grouped: Vec<f32>,                // [samples, kv_heads, group + 2, length, head_dim], rotated
    pub(super) attended: Vec<f32>,               // [rows, heads · head_dim]
    pub(super) attn_sub_inv_rms: Vec<f32>,       // [rows], or empty where there is no such norm
    pub(super) middle: Vec<f32>, // [rows, hidden], the stream between attention and feed-forward
    pub(super) post_attention_inv_rms: Vec<f32>, // [rows]
    pub(super) gate_up: Vec<f32>, // [rows, 2 · intermediate]
    pub(super) ffn_sub_inv_rms: Vec<f32>, // as `attn_sub_inv_rms`
}

/// Buffers that all layers share.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(super) normed: Vec<f32>,     // [rows, hidden]
    pub(super) d_normed: Vec<f32>,   // [rows, hidden]
    pub(super) branch: Vec<f32>,     // [rows, hidden], and its gradient
    pub(super) projected: Vec<f32>,  // [rows, (heads + 2 · kv_heads) · head_dim]
    pub(super) d_grouped: Vec<f32>,  // as `projected`
    pub(super) heads: Vec<f32>,      // [rows, heads · head_dim]
    pub(super) gated: Vec<f32>,      // [rows, intermediate]
    pub(super) d_gated: Vec<f32>,    // [rows, intermediate]
    pub(super) scores: Vec<f32>,     // attention's tiles
    pub(super) partial: Vec<f32>,    // [⌈rows / BLOCK⌉, widest norm]
    pub(super) sub_normed: Vec<f32>, // [rows, widest], or empty: a sub-norm's output, or d of its input
    pub(super) products: ProductScratch,
}

/// What products need: the rounded input of a ternary matrix, and partial sums of a bias. Each is empty where
/// a model has none.
#[derive(Debug)]
pub(crate) struct ProductScratch {
    pub(super) codes: Vec<f32>, // [rows, widest]: codes in the forward, what they are worth in the backward
    pub(super) scales: Vec<f32>, // [rows]
    pub(super) partial: Vec<f32>, // [⌈rows / BLOCK⌉, widest bias]
}

/// The buffers of one call of a layer.
pub(crate) struct Buffers<'a> {
    pub(crate) activations: &'a mut Activations,
    pub(crate) scratch: &'a mut Scratch,
}

impl Activations {
    /// Buffers for `samples` of `length` tokens.
    pub(crate) fn new(sizes: &Sizes, samples: usize, length: usize) -> Self {
        let (rows, heads) = (samples * length, sizes.heads(length));
        let sub_normed = if sizes.low_bit { rows } else { 0 };
        let head_normed = if sizes.head_norms { rows } else { 0 };
        Self {
            input_inv_rms: vec![0.0; rows],
            projected: vec![0.0; head_normed * heads.row()],
            head_inv_rms: vec![0.0; head_normed * heads.normed()],
            grouped: vec![0.0; rows * heads.row()],
            attended: vec![0.0; rows * heads.queries()],
            attn_sub_inv_rms: vec![0.0; sub_normed],
            middle: vec![0.0; rows * sizes.hidden],
            post_attention_inv_rms: vec![0.0; rows],
            gate_up: vec![0.0; rows * 2 * sizes.intermediate],
            ffn_sub_inv_rms: vec![0.0; sub_normed],
        }
    }
}

/// Values that [`Activations`] hold for a row.
pub(crate) fn kept_floats(sizes: &Sizes) -> u128 {
    let heads = sizes.heads(1);
    let sub_norms = if sizes.low_bit { 2 } else { 0 };
    let head_norms = if sizes.head_norms { heads.row() + heads.normed() } else { 0 };
    let widths = [heads.row(), heads.queries(), sizes.hidden, sizes.intermediate, sizes.intermediate];
    2 + sub_norms + head_norms as u128 + widths.map(|width| width as u128).iter().sum::<u128>()
}

/// Values that [`Scratch`] holds for `samples` of `length` tokens.
pub(crate) fn shared_floats(sizes: &Sizes, samples: u128, length: u128) -> u128 {
    let (rows, heads) = (samples * length, sizes.heads(1));
    let (hidden, inner) = (sizes.hidden as u128, sizes.intermediate as u128);
    let low_bit = if sizes.low_bit { 2 * sizes.widest() as u128 + 1 } else { 0 };
    let widths = 3 * hidden + 2 * heads.row() as u128 + heads.queries() as u128 + 2 * inner + low_bit;
    // `scratch_len` of one token of one sample, times the rows, is that of all.
    let scores = attention::scratch_len(1, heads) as u128 * rows;
    let partial = (sizes.widest_norm() + sizes.widest_bias) as u128;
    rows * widths + scores + rows.div_ceil(BLOCK as u128) * partial
}

impl Scratch {
    /// Buffers for `samples` of `length` tokens.
    pub(crate) fn new(sizes: &Sizes, samples: usize, length: usize) -> Self {
        let (rows, heads) = (samples * length, sizes.heads(length));
        let buffer = |width: usize| vec![0.0; rows * width];
        let low_bit = |width: usize| vec![0.0; if sizes.low_bit { rows * width } else { 0 }];
        Self {
            normed: buffer(sizes.hidden),
            d_normed: buffer(sizes.hidden),
            branch: buffer(sizes.hidden),
            projected: buffer(heads.row()),
            d_grouped: buffer(heads.row()),
            heads: buffer(heads.queries()),
            gated: buffer(sizes.intermediate),
            d_gated: buffer(sizes.intermediate),
            scores: vec![0.0; attention::scratch_len(samples, heads)],
            partial: vec![0.0; rows.div_ceil(BLOCK) * sizes.widest_norm()],
            sub_normed: low_bit(sizes.widest()),
            products: ProductScratch {
                codes: low_bit(sizes.widest()),
                scales: low_bit(1),
                partial: vec![0.0; rows.div_ceil(BLOCK) * sizes.widest_bias],
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use std::path::Path;

    #[test]
    fn values_are_counted_as_they_are_allocated() {
        let (samples, length) = (3, 70);
        for keys in [
            "",
            "bit_linear = \"bitskip-v2\"",
            "attention_bias = true\nmlp_bias = true",
            "model_type = \"qwen3\"\nhead_dim = 64",
        ] {
            let text = format!(
                "[data]\ncorpus = \"c\"\n[layer_dropout]\nshape = \"none\"\n[model]\nhidden_size = 64\n\
                 intermediate_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 4\nnum_key_value_heads = 2\n{keys}"
            );
            let recipe = Recipe::from_toml(&text, Path::new("r.toml")).unwrap();
            let sizes = Sizes::new(&recipe.config(300, None).unwrap());
            let kept = Activations::new(&sizes, samples, length);
            let kept = [
                kept.input_inv_rms,
                kept.projected,
                kept.head_inv_rms,
                kept.grouped,
                kept.attended,
                kept.attn_sub_inv_rms,
                kept.middle,
                kept.post_attention_inv_rms,
                kept.gate_up,
                kept.ffn_sub_inv_rms,
            ];
            let allocated: usize = kept.iter().map(Vec::len).sum();
            assert_eq!(allocated as u128, kept_floats(&sizes) * (samples * length) as u128, "{keys}");
            let shared = Scratch::new(&sizes, samples, length);
            let shared = [
                shared.normed,
                shared.d_normed,
                shared.branch,
                shared.projected,
                shared.d_grouped,
                shared.heads,
                shared.gated,
                shared.d_gated,
                shared.scores,
                shared.partial,
                shared.sub_normed,
                shared.products.codes,
                shared.products.scales,
                shared.products.partial,
            ];
            let allocated: usize = shared.iter().map(Vec::len).sum();
            assert_eq!(allocated as u128, shared_floats(&sizes, samples as u128, length as u128), "{keys}");
        }
    }
}
