//! One decoder layer: attention and a gated feed-forward network, each on a normed residual stream.

use crate::attention::Attention;
use crate::batch::Batch;
use crate::hidden::Hidden;
use crate::linear::{Linear, together};
use crate::norm::RmsNorm;
use crate::scratch::Scratch;
use offramp_kernels::rows;

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
    /// Moves the residual stream through this layer, number `index`, and appends to the batch's caches.
    pub(crate) fn forward(
        &self,
        index: usize,
        hidden: &mut Hidden,
        batch: &mut Batch<'_>,
        scratch: &mut Scratch,
    ) {
        let (stream, width) = (&mut hidden.stream, hidden.hidden_size);
        self.input_layernorm.forward(stream, &mut scratch.normed);
        self.self_attn.forward(index, batch, scratch);
        rows::add(&scratch.residual, width, stream);
        self.post_attention_layernorm.forward(stream, &mut scratch.normed);
        self.mlp.forward(scratch);
        rows::add(&scratch.residual, width, stream);
    }

    /// Appends to the caches what this layer would, had the residual stream reached it as it is.
    pub(crate) fn fill(&self, index: usize, hidden: &Hidden, batch: &mut Batch<'_>, scratch: &mut Scratch) {
        self.input_layernorm.forward(&hidden.stream, &mut scratch.normed);
        self.self_attn.fill(index, batch, scratch);
    }

    /// Bytes of its weights.
    pub(crate) fn bytes(&self) -> u64 {
        let linears: u64 = self.linears().into_iter().map(Linear::bytes).sum();
        linears + self.norms().map(RmsNorm::bytes).sum::<u64>()
    }

    /// The layer's norms.
    fn norms(&self) -> impl Iterator<Item = &RmsNorm> {
        let Attention { q_norm, k_norm, attn_sub_norm, .. } = &self.self_attn;
        let own = [&self.input_layernorm, &self.post_attention_layernorm];
        own.into_iter().chain(q_norm).chain(k_norm).chain(attn_sub_norm).chain(&self.mlp.ffn_sub_norm)
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

impl Mlp {
    /// From `scratch.normed` `[rows, hidden]` to `scratch.residual` `[rows, hidden]`.
    fn forward(&self, scratch: &mut Scratch) {
        let Scratch { normed, operand, gate, up, gated, residual, .. } = scratch;
        together(normed, operand, [(&self.gate_proj, gate), (&self.up_proj, up)]);
        gated.resize(gate.len(), 0.0);
        rows::silu_mul(gate, up, self.gate_proj.out_features(), gated);
        let inner = match &self.ffn_sub_norm {
            None => gated,
            Some(norm) => {
                norm.forward(gated, normed);
                normed
            }
        };
        self.down_proj.forward(inner, operand, residual);
    }
}
