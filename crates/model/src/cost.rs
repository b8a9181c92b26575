//! What a model's calls cost, from its shapes: counted in one place for every call.

use crate::batch::Batch;
use crate::config::Config;
use crate::draft_head::DraftHead;
use crate::layer::DecoderLayer;
use crate::linear::Linear;
use crate::llama::Llama;
use crate::norm::RmsNorm;
use crate::work::Work;
use std::ops::Range;

/// Positions that rows attend to: as each row sees them, and each text's once.
#[derive(Clone, Copy, Debug)]
struct Positions {
    seen: u64,
    read: u64,
}

impl Llama {
    /// Bytes of weights that one token reads when it leaves after `exit_layer` layers, head included.
    pub fn bytes_per_token(&self, exit_layer: usize) -> u64 {
        let row = self.embed_tokens().bytes() / self.config().vocab_size as u64;
        let layers = self.layers()[..exit_layer.min(self.layers().len())].iter().map(DecoderLayer::bytes);
        row + layers.sum::<u64>() + self.head_work(None, 1).bytes
    }

    /// Bytes of keys and values that one position adds to the first `exit_layer` layers.
    pub fn kv_bytes_per_position(&self, exit_layer: usize) -> u64 {
        let Config { num_hidden_layers, num_key_value_heads, head_dim, .. } = *self.config();
        let layers = exit_layer.min(num_hidden_layers);
        (2 * self.cache_format().bytes() * num_key_value_heads * head_dim * layers) as u64
    }

    /// What one layer takes for one token that sees no other: what a round of speculation is planned by.
    pub fn layer_work(&self) -> Work {
        let layer = &self.layers()[0]; // a valid config has a layer
        let mut work = Work { bytes: layer.bytes(), operations: 0 };
        work.operations = layer.linears().into_iter().map(|linear| product(linear, 1).operations).sum();
        work
    }

    /// What a token takes that comes alone after `before` others and leaves after `exit_layer` layers, head
    /// included.
    pub fn token_work(&self, exit_layer: usize, before: usize) -> Work {
        let mut work = self.rows_work(0..exit_layer, 1, |window| {
            let seen = (before as u64 + 1).min(window.map_or(u64::MAX, |window| window as u64));
            Positions { seen, read: seen }
        });
        work += self.head_work(None, 1);
        work
    }

    /// What [`Llama::forward`] takes for a batch that is placed.
    pub(crate) fn forward_work(&self, layers: Range<usize>, batch: &Batch<'_>) -> Work {
        let positions = |window| Positions { seen: batch.seen(window), read: batch.read(window) };
        self.rows_work(layers, batch.rows(), positions)
    }

    /// `positions` says what a layer of some window attends to.
    fn rows_work(
        &self,
        layers: Range<usize>,
        rows: usize,
        positions: impl Fn(Option<usize>) -> Positions,
    ) -> Work {
        let mut work = Work::default();
        for layer in &self.layers()[layers.clone()] {
            let products = layer.linears().into_iter().map(|linear| product(linear, rows));
            work.operations += products.map(|work| work.operations).sum::<u64>();
            work.bytes += layer.bytes();
        }
        let heads = (self.config().num_attention_heads * self.config().head_dim) as u64;
        let position = self.kv_bytes_per_position(1);
        for layer in &self.layers()[layers] {
            let Positions { seen, read } = positions(layer.self_attn.window);
            // Each position that a row sees has a product of its key and one of its value.
            work.operations += 4 * heads * seen;
            work.bytes += read * position;
        }
        work
    }

    /// What [`Llama::fill`] takes for `rows` rows.
    pub(crate) fn fill_work(&self, layers: Range<usize>, rows: usize) -> Work {
        let mut work = Work::default();
        for layer in &self.layers()[layers] {
            work += product(&layer.self_attn.k_proj, rows);
            work += product(&layer.self_attn.v_proj, rows);
            work.bytes += layer.input_layernorm.bytes();
            work.bytes += layer.self_attn.k_norm.as_ref().map_or(0, RmsNorm::bytes);
        }
        work
    }

    /// What [`Llama::head`] takes for `rows` rows, or [`Llama::draft_logits`] with a draft head.
    pub fn head_work(&self, draft_head: Option<&DraftHead>, rows: usize) -> Work {
        if rows == 0 {
            return Work::default();
        }
        let mut work = product(draft_head.map_or(self.lm_head(), DraftHead::weight), rows);
        work.bytes += self.norm().bytes();
        work
    }
}

/// A product of a layer with so many rows.
fn product(linear: &Linear, rows: usize) -> Work {
    let weights = linear.in_features() as u64 * linear.out_features() as u64;
    Work { bytes: linear.bytes(), operations: 2 * weights * rows as u64 }
}
