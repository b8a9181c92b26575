//! Causal attention over the cache, with grouped heads (GQA) and rotary positions.

use crate::hidden::{Angles, Scratch};
use crate::kv_cache::LayerCache;
use crate::linear::{Linear, together};
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::{ColumnsMut, Rows, Table, active};

/// `self_attn` of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub(crate) q_proj: Linear, // [heads · head_dim, hidden]
    pub(crate) k_proj: Linear, // [kv_heads · head_dim, hidden]
    pub(crate) v_proj: Linear, // [kv_heads · head_dim, hidden]
    pub(crate) o_proj: Linear, // [hidden, heads · head_dim]
    pub(crate) head_dim: usize,
}

/// Multiply-adds below which the pool is not worth waking.
const WORTH_A_THREAD: usize = 1 << 18;

impl Attention {
    /// Attends from the tokens in `scratch.normed` to the cache and themselves, appending them to
    /// `cache`; the result is left in `scratch.residual` `[tokens, hidden]`.
    pub(crate) fn forward(&self, scratch: &mut Scratch, cache: &mut LayerCache) {
        let Scratch { normed, operand, queries, keys, values, attended, residual, angles, .. } = scratch;
        let projections =
            [(&self.q_proj, &mut *queries), (&self.k_proj, &mut *keys), (&self.v_proj, &mut *values)];
        together(normed, operand, projections);
        self.rotate(queries, angles);
        self.rotate(keys, angles);
        // Scaled here once instead of at every score.
        let scale = 1.0 / (self.head_dim as f32).sqrt();
        queries.iter_mut().for_each(|q| *q *= scale);
        let before = cache.len();
        cache.append(keys, values);
        attended.resize(queries.len(), 0.0);
        self.attend(queries, cache, before, attended);
        self.o_proj.forward(attended, operand, residual);
    }

    /// Rotates `heads` `[tokens, any number of heads, head_dim]` to their positions.
    fn rotate(&self, heads: &mut [f32], angles: &Angles) {
        let (half, tokens) = (self.head_dim / 2, angles.positions.len());
        let row = heads.len() / tokens;
        for (t, token) in heads.chunks_exact_mut(row).enumerate() {
            let (cos, sin) = (&angles.cos[t * half..][..half], &angles.sin[t * half..][..half]);
            for head in token.chunks_exact_mut(self.head_dim) {
                (active().rope)(head, cos, sin);
            }
        }
    }

    /// Token `t` sees positions `0..=before + t`. One token's arithmetic is the same however many
    /// tokens and threads share the call.
    fn attend(&self, queries: &[f32], cache: &LayerCache, before: usize, attended: &mut [f32]) {
        let row = self.q_proj.out_features();
        let tokens = queries.len() / row;
        let one = |scores: &mut Vec<f32>, t: usize, out: &mut [f32]| {
            self.attend_one(&queries[t * row..][..row], cache, (before + t + 1, scores), out);
        };
        if tokens > 1 && tokens * row * cache.len() > WORTH_A_THREAD {
            let rows = attended.par_chunks_exact_mut(row).enumerate();
            rows.for_each_init(Vec::new, |scores, (t, out)| one(scores, t, out));
        } else {
            let mut scores = Vec::new();
            attended.chunks_exact_mut(row).enumerate().for_each(|(t, out)| one(&mut scores, t, out));
        }
    }

    /// One token: `queries` and `out` `[heads, head_dim]`, `visible` positions, `scores` to work in.
    fn attend_one(
        &self,
        queries: &[f32],
        cache: &LayerCache,
        (visible, scores): (usize, &mut Vec<f32>),
        out: &mut [f32],
    ) {
        let table: &Table = active();
        let kv_heads = self.k_proj.out_features() / self.head_dim;
        // The query heads of a group share one key head and follow one another.
        let group = queries.len() / kv_heads;
        scores.resize(group / self.head_dim * visible, 0.0); // [heads of the group, visible]
        for (kv_head, out) in out.chunks_exact_mut(group).enumerate() {
            let (keys, values) = cache.head(kv_head, visible);
            let x = &queries[kv_head * group..][..group];
            let factors = Rows { x, weight: keys, in_features: self.head_dim };
            (table.product)(factors, ColumnsMut::new(scores, visible));
            for (weights, out) in scores.chunks_exact_mut(visible).zip(out.chunks_exact_mut(self.head_dim)) {
                (table.softmax)(weights);
                (table.weighted_sum)(weights, values, out);
            }
        }
    }
}
