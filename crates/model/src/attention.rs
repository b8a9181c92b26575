//! Causal attention over the caches, with grouped heads (GQA) and rotary positions.

use crate::batch::Batch;
use crate::linear::{Linear, together};
use crate::norm::RmsNorm;
use crate::scratch::{Angles, Scratch};
use offramp_kernels::attend::AttentionHeads;
use offramp_kernels::rows;

/// `self_attn` of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub(crate) q_proj: Linear,                 // [heads · head_dim, hidden]
    pub(crate) k_proj: Linear,                 // [kv_heads · head_dim, hidden]
    pub(crate) v_proj: Linear,                 // [kv_heads · head_dim, hidden]
    pub(crate) q_norm: Option<RmsNorm>,        // [head_dim], of Qwen3
    pub(crate) k_norm: Option<RmsNorm>,        // [head_dim], of Qwen3
    pub(crate) attn_sub_norm: Option<RmsNorm>, // [heads · head_dim], of ternary models
    pub(crate) o_proj: Linear,                 // [hidden, heads · head_dim]
    pub(crate) head_dim: usize,
    pub(crate) rotates: bool,         // queries and keys, to their positions
    pub(crate) window: Option<usize>, // positions that a token sees, itself among them
}

impl Attention {
    /// Attends from the rows of `scratch.normed` `[rows, hidden]` to their texts' caches and themselves,
    /// which it appends to layer `index` of the caches; the result is left in `scratch.residual` `[rows,
    /// hidden]`.
    pub(crate) fn forward(&self, index: usize, batch: &mut Batch<'_>, scratch: &mut Scratch) {
        let Scratch { normed, operand, queries, keys, values, .. } = scratch;
        together(normed, operand, [(&self.q_proj, queries), (&self.k_proj, keys), (&self.v_proj, values)]);
        let Scratch { normed, operand, queries, keys, values, attended, residual, angles, .. } = scratch;
        norm_heads(self.q_norm.as_ref(), queries, attended);
        self.finish_keys(keys, attended, angles);
        if self.rotates {
            rows::rotate(queries, self.head_dim, &angles.cos, &angles.sin);
        }
        // Scaled here once instead of at every score.
        rows::scale(queries, 1.0 / (self.head_dim as f32).sqrt());
        batch.append(index, keys, values, self.head_dim);
        attended.resize(queries.len(), 0.0);
        batch.with_layer(index, |texts| self.heads().attend(queries, texts, attended));
        let attended = match &self.attn_sub_norm {
            None => attended,
            Some(norm) => {
                norm.forward(attended, normed);
                normed
            }
        };
        self.o_proj.forward(attended, operand, residual);
    }

    /// Appends keys and values of the rows of `scratch.normed` to the caches, and reads nothing of them.
    pub(crate) fn fill(&self, index: usize, batch: &mut Batch<'_>, scratch: &mut Scratch) {
        let Scratch { normed, operand, keys, values, attended, angles, .. } = scratch;
        together(normed, operand, [(&self.k_proj, &mut *keys), (&self.v_proj, &mut *values)]);
        self.finish_keys(keys, attended, angles);
        batch.append(index, keys, values, self.head_dim);
    }

    /// Norms and rotates keys, where the layer does.
    fn finish_keys(&self, keys: &mut Vec<f32>, spare: &mut Vec<f32>, angles: &Angles) {
        norm_heads(self.k_norm.as_ref(), keys, spare);
        if self.rotates {
            rows::rotate(keys, self.head_dim, &angles.cos, &angles.sin);
        }
    }

    fn heads(&self) -> AttentionHeads {
        let kv_heads = self.k_proj.out_features() / self.head_dim;
        let group = self.q_proj.out_features() / self.k_proj.out_features();
        AttentionHeads { kv_heads, group, head_dim: self.head_dim, window: self.window }
    }
}

/// Norms every head of `heads` `[rows, any number of heads, head_dim]`, if there is a norm; `spare` gets
/// their old buffer.
fn norm_heads(norm: Option<&RmsNorm>, heads: &mut Vec<f32>, spare: &mut Vec<f32>) {
    if let Some(norm) = norm {
        norm.forward(heads, spare);
        std::mem::swap(heads, spare);
    }
}
