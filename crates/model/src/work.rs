//! What a call costs, whatever the machine: the bytes it reads and the operations it takes.

use crate::draft_head::DraftHead;
use crate::layer::DecoderLayer;
use crate::linear::Linear;
use crate::llama::Llama;
use std::ops::{AddAssign, Range, Sub};

/// Bytes of weights, keys and values that are read, and operations (a multiplication and an addition are two) of the
/// products and of attention; what is done once a number (norms, activations, rotations) is not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes read: weights once a call, however many tokens share it.
    pub bytes: u64,
    /// Operations, which every token takes for itself.
    pub operations: u64,
}

impl Work {
    fn product(linear: &Linear, tokens: usize) -> Self {
        let weights = linear.in_features() as u64 * linear.out_features() as u64;
        Self { bytes: linear.bytes(), operations: 2 * weights * tokens as u64 }
    }

    /// The larger of its two shares in `whole`.
    pub fn share(&self, whole: &Self) -> f64 {
        let bytes = self.bytes as f64 / whole.bytes.max(1) as f64;
        bytes.max(self.operations as f64 / whole.operations.max(1) as f64)
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.operations += other.operations;
    }
}

impl Sub for Work {
    type Output = Self;

    /// What is left beyond `other`, and nothing where that is more.
    fn sub(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            operations: self.operations.saturating_sub(other.operations),
        }
    }
}

impl Llama {
    /// What [`Llama::forward`] takes for `tokens` tokens that follow `before` positions.
    pub fn forward_work(&self, layers: Range<usize>, tokens: usize, before: usize) -> Work {
        let mut work = Work::default();
        if tokens == 0 {
            return work;
        }
        let depth = layers.len() as u64;
        for linear in self.layers()[layers].iter().flat_map(DecoderLayer::linears) {
            work += Work::product(linear, tokens);
        }
        let heads = (self.config().num_attention_heads * self.config().head_dim) as u64;
        // Token t sees before + t + 1 positions, each with a product of its key and one of its value.
        let seen = (tokens * before + tokens * (tokens + 1) / 2) as u64;
        let cache = (before + tokens) as u64 * self.kv_bytes_per_position(1);
        work += Work { bytes: depth * cache, operations: depth * 4 * heads * seen };
        work
    }

    /// What [`Llama::fill`] takes for `tokens` tokens.
    pub fn fill_work(&self, layers: Range<usize>, tokens: usize) -> Work {
        let mut work = Work::default();
        if tokens > 0 {
            for layer in &self.layers()[layers] {
                work += Work::product(&layer.self_attn.k_proj, tokens);
                work += Work::product(&layer.self_attn.v_proj, tokens);
            }
        }
        work
    }

    /// What [`Llama::head`] takes for `tokens` tokens, or [`Llama::draft_logits`] with a draft head.
    pub fn head_work(&self, draft_head: Option<&DraftHead>, tokens: usize) -> Work {
        match tokens {
            0 => Work::default(),
            _ => Work::product(draft_head.map_or(self.lm_head(), DraftHead::weight), tokens),
        }
    }
}
