//! One decoder layer: attention and a gated feed-forward network, each on a normed residual stream.

use crate::attention::Attention;
use crate::hidden::{Hidden, Scratch};
use crate::kv_cache::LayerCache;
use crate::linear::{Linear, together};
use crate::weights::Storage;
use offramp_kernels::active;

/// Root-mean-square norm with a weight.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Storage<f32>, // [width]
    pub(crate) eps: f32,
}

impl RmsNorm {
    /// Norms every row of `x` `[tokens, width]` into `out`, which is resized.
    pub(crate) fn forward(&self, x: &[f32], out: &mut Vec<f32>) {
        let weight = self.weight.as_slice();
        out.resize(x.len(), 0.0);
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            (active().rms_norm)(x, weight, self.eps, out);
        }
    }
}

/// SwiGLU: `down(silu(gate(x)) · up(x))`.
#[derive(Clone, Debug)]
pub(crate) struct Mlp {
    pub(crate) gate_proj: Linear,             // [intermediate, hidden]
    pub(crate) up_proj: Linear,               // [intermediate, hidden]
    pub(crate) ffn_sub_norm: Option<RmsNorm>, // [intermediate], of ternary models
    pub(crate) down_proj: Linear,             // [hidden, intermediate]
}

/// One layer of the model.
#[derive(Clone, Debug)]
pub(crate) struct DecoderLayer {
    pub(crate) input_layernorm: RmsNorm,
    pub(crate) self_attn: Attention,
    pub(crate) post_attention_layernorm: RmsNorm,
    pub(crate) mlp: Mlp,
}

impl DecoderLayer {
    /// Moves the residual stream through this layer and appends to its cache.
    pub(crate) fn forward(&self, hidden: &mut Hidden, cache: &mut LayerCache) {
        let Hidden { stream, scratch, .. } = hidden;
        self.input_layernorm.forward(stream, &mut scratch.normed);
        self.self_attn.forward(scratch, cache);
        (active().axpy)(1.0, &scratch.residual, stream);

        self.post_attention_layernorm.forward(stream, &mut scratch.normed);
        let Scratch { normed, operand, gate, up, gated, residual, .. } = scratch;
        together(normed, operand, [(&self.mlp.gate_proj, gate), (&self.mlp.up_proj, up)]);
        gated.resize(gate.len(), 0.0);
        (active().silu_mul)(gate, up, gated);
        let inner = match &self.mlp.ffn_sub_norm {
            None => gated,
            Some(norm) => {
                norm.forward(gated, normed);
                normed
            }
        };
        self.mlp.down_proj.forward(inner, operand, residual);
        (active().axpy)(1.0, &scratch.residual, stream);
    }

    /// Appends to the cache what this layer would, had the residual stream reached it as it is.
    pub(crate) fn fill(&self, hidden: &mut Hidden, cache: &mut LayerCache) {
        let Hidden { stream, scratch, .. } = hidden;
        self.input_layernorm.forward(stream, &mut scratch.normed);
        self.self_attn.fill(scratch, cache);
    }

    /// The norms of a ternary model that a Llama has not.
    pub(crate) fn sub_norms(&self) -> impl Iterator<Item = &RmsNorm> {
        self.self_attn.attn_sub_norm.iter().chain(&self.mlp.ffn_sub_norm)
    }

    /// The layer's matrices, in file order.
    pub(crate) fn linears(&self) -> [&Linear; 7] {
        let (attention, mlp) = (&self.self_attn, &self.mlp);
        [
            &attention.q_proj,
            &attention.k_proj,
            &attention.v_proj,
            &attention.o_proj,
            &mlp.gate_proj,
            &mlp.up_proj,
            &mlp.down_proj,
        ]
    }
}
