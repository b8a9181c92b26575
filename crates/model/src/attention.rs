//! Causal attention over the cache, with grouped heads (GQA) and rotary positions.

use crate::hidden::{Angles, Scratch};
use crate::kv_cache::LayerCache;
use crate::layer::RmsNorm;
use crate::linear::{Linear, together};
use offramp_kernels::attend::Attend;
use offramp_kernels::{Claims, ColumnsMut, active, pool, team};

/// `self_attn` of one layer.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub(crate) q_proj: Linear,                 // [heads · head_dim, hidden]
    pub(crate) k_proj: Linear,                 // [kv_heads · head_dim, hidden]
    pub(crate) v_proj: Linear,                 // [kv_heads · head_dim, hidden]
    pub(crate) attn_sub_norm: Option<RmsNorm>, // [heads · head_dim], of ternary models
    pub(crate) o_proj: Linear,                 // [hidden, heads · head_dim]
    pub(crate) head_dim: usize,
}

/// Multiply-adds of scores below which a thread is not worth calling.
const WORTH_A_THREAD: usize = 1 << 16;
/// Tokens that are worth a part of their own, and the most parts that a call is cut into.
const PART: usize = 64;
const PARTS: usize = 8;

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
        let attended = match &self.attn_sub_norm {
            None => attended,
            Some(norm) => {
                norm.forward(attended, normed);
                normed
            }
        };
        self.o_proj.forward(attended, operand, residual);
    }

    /// Appends keys and values of the tokens in `scratch.normed` to `cache`, and asks nothing of it.
    pub(crate) fn fill(&self, scratch: &mut Scratch, cache: &mut LayerCache) {
        let Scratch { normed, operand, keys, values, angles, .. } = scratch;
        together(normed, operand, [(&self.k_proj, &mut *keys), (&self.v_proj, &mut *values)]);
        self.rotate(keys, angles);
        cache.append(keys, values);
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
        let table = active();
        let (row, head_dim) = (self.q_proj.out_features(), self.head_dim);
        let tokens = queries.len() / row;
        // The query heads of a group share one key head and follow one another.
        let (kv_heads, group) = (cache.kv_heads(), row / cache.kv_heads());
        let worth = queries.len().saturating_mul(cache.len()) / WORTH_A_THREAD;
        let parts = if worth > 1 { tokens.div_ceil(PART).clamp(1, PARTS) } else { 1 };
        let threads = worth.min(kv_heads * parts).clamp(1, pool::threads());
        let tokens_of_part = tokens.div_ceil(parts);
        let mut outs = attended.chunks_mut(tokens_of_part * row);
        let shared: [_; PARTS] = std::array::from_fn(|_| {
            outs.next().map(|out| Claims::new(ColumnsMut::new(out, row), group, group, threads))
        });
        team::together(threads, &|thread| {
            // The last tokens see most: whoever is done early finds something short to help with.
            for (part, claims) in shared.iter().enumerate().rev() {
                let first = part * tokens_of_part;
                while let Some((column, out)) = claims.as_ref().and_then(|claims| claims.claim(thread)) {
                    let queries = &queries[first * row + column..];
                    let cache = cache.head(column / group);
                    let job = Attend { queries, stride: row, head_dim, first: before + first, cache };
                    (table.attend)(&job, out);
                }
            }
        });
    }
}
