//! A Llama whose depth is chosen at run time.

mod build;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::format::{CacheFormat, Formats};
use crate::hidden::{Angles, Hidden};
use crate::kv_cache::KvCache;
use crate::layer::{DecoderLayer, RmsNorm};
use crate::linear::Linear;
use crate::memory;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// The model: embedding, layers, and the one exit head that serves every depth.
///
/// It is immutable; all state of a run is in a [`Hidden`] and a [`KvCache`].
#[derive(Clone, Debug)]
pub struct Llama {
    id: u64,
    config: Config,
    embed_tokens: Linear, // [vocab, hidden], of which rows are read: always floats
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: Linear, // [vocab, hidden]; shares a tied embedding's memory if it has its format
    rope: crate::rope::Rope,
    kv_cache: CacheFormat,
}

impl Llama {
    /// A number that no other model of this process has: clones share it, models that were loaded or made apart do
    /// not, even if they are alike. What was learnt or made of one model is known by it.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What layers, head and cache hold; where a file mixes formats, its first layer speaks for all.
    pub fn formats(&self) -> Formats {
        let layers = Some(self.layers[0].self_attn.q_proj.format()); // a valid config has a layer
        Formats { layers, head: Some(self.lm_head.format()), kv_cache: self.kv_cache }
    }

    /// Bytes of all weights; a tied head in the format of its embedding counts once.
    pub fn bytes(&self) -> u64 {
        let head = if self.lm_head.shares(&self.embed_tokens) { 0 } else { self.lm_head.bytes() };
        self.embed_tokens.bytes() + self.layer_bytes(self.layers.len()) + head
    }

    /// What this model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty residual stream for this model.
    pub fn new_hidden(&self) -> Hidden {
        Hidden::new(self.config.hidden_size)
    }

    /// An empty cache for `capacity` positions; [`Llama::forward`] asks for their memory.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        let Config { num_hidden_layers, num_key_value_heads, head_dim, .. } = self.config;
        KvCache::new(num_hidden_layers, num_key_value_heads, head_dim, capacity, self.kv_cache)
    }

    /// Checks that the memory has room for a cache of `capacity` positions, filled to the last.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    pub fn check_cache(&self, capacity: usize) -> Result<()> {
        let bytes = self.kv_bytes_per_position(self.layers.len()).saturating_mul(capacity as u64);
        memory::check(&format!("a cache of {capacity} positions"), bytes)
    }

    /// Starts the residual stream of `tokens`; what `hidden` held before is gone. `hidden` stays with
    /// the model that made it: it remembers that model's rotary angles.
    ///
    /// # Errors
    /// If a token id is not in the vocabulary.
    pub fn embed(&self, tokens: &[u32], hidden: &mut Hidden) -> Result<()> {
        tokens.iter().try_for_each(|&token| self.config.check_token(token))?;
        hidden.stream.clear();
        for &token in tokens {
            self.embed_tokens.append_row(token as usize, &mut hidden.stream);
        }
        Ok(())
    }

    /// Moves `hidden` in place through `layers` and appends their keys and values to `cache`.
    ///
    /// Every depth in this project is one call: the whole model is `0..L`, an early exit and a draft
    /// are `0..e`, and verification is `e..L` over the same hidden states. The tokens' positions
    /// follow those that the range's layers hold.
    ///
    /// # Errors
    /// If the cache has no room for the tokens, or the machine none for the cache; then nothing has changed.
    ///
    /// # Panics
    /// If the range leaves the model, or its layers hold different numbers of positions: truncate the
    /// cache to the shortest first.
    pub fn forward(&self, layers: Range<usize>, hidden: &mut Hidden, cache: &mut KvCache) -> Result<()> {
        if self.prepare(layers.clone(), hidden, cache)? {
            layers.for_each(|l| self.layers[l].forward(hidden, cache.layer_mut(l)));
        }
        Ok(())
    }

    /// Makes sure of room in the layers' cache, and of the angles of the tokens' positions; whether there is anything
    /// to do.
    fn prepare(&self, layers: Range<usize>, hidden: &mut Hidden, cache: &mut KvCache) -> Result<bool> {
        let tokens = hidden.tokens();
        if layers.is_empty() || tokens == 0 {
            return Ok(false);
        }
        let before = cache.len(layers.start);
        assert!(layers.clone().all(|l| cache.len(l) == before), "layers {layers:?} hold different positions");
        if before + tokens > cache.capacity() {
            return Err(Error::CacheFull { positions: before + tokens, capacity: cache.capacity() });
        }
        let unreserved = layers.clone().map(|l| cache.layer(l).unreserved());
        let needed = unreserved.fold(self.missing(hidden), u64::saturating_add);
        memory::check(&format!("{tokens} tokens, in a cache of {} positions", cache.capacity()), needed)?;
        layers.clone().try_for_each(|l| cache.layer_mut(l).reserve())?;
        self.turn(before..before + tokens, &mut hidden.scratch.angles);
        Ok(true)
    }

    /// Bytes that a layer needs for the tokens in flight beyond those that `hidden` holds.
    fn missing(&self, hidden: &Hidden) -> u64 {
        let Config { hidden_size, intermediate_size: inner, head_dim, .. } = self.config;
        let heads = self.config.num_attention_heads.saturating_add(self.config.num_key_value_heads);
        let width =
            [hidden_size.saturating_mul(4), heads.saturating_mul(2 * head_dim), inner.saturating_mul(3)];
        hidden.missing(width.into_iter().fold(0, usize::saturating_add), inner)
    }

    /// Appends keys and values of `layers` for tokens that left before them, each layer's own projections of the
    /// state in which they left (Schuster et al. 2022, CALM, section 3.4): tokens to come can so attend to them.
    /// `hidden` stays as it is. The positions follow those that the layers hold.
    ///
    /// # Errors
    /// As [`Llama::forward`].
    ///
    /// # Panics
    /// As [`Llama::forward`].
    pub fn fill(&self, layers: Range<usize>, hidden: &mut Hidden, cache: &mut KvCache) -> Result<()> {
        if self.prepare(layers.clone(), hidden, cache)? {
            layers.for_each(|l| self.layers[l].fill(hidden, cache.layer_mut(l)));
        }
        Ok(())
    }

    /// Logits of some of the tokens, from whatever depth `hidden` stands at, through the one shared
    /// norm and LM head.
    ///
    /// # Shapes
    /// `logits`: resized to `[rows, vocab]`
    ///
    /// # Panics
    /// If `rows` leaves the tokens in flight.
    pub fn head(&self, hidden: &mut Hidden, rows: Range<usize>, logits: &mut Vec<f32>) {
        self.norm_rows(hidden, rows);
        self.lm_head.forward(&hidden.scratch.normed, &mut hidden.scratch.operand, logits);
    }

    /// The final norm of some of the tokens, left in the scratch.
    pub(crate) fn norm_rows(&self, hidden: &mut Hidden, rows: Range<usize>) {
        let width = self.config.hidden_size;
        let Hidden { stream, scratch, .. } = hidden;
        self.norm.forward(&stream[rows.start * width..rows.end * width], &mut scratch.normed);
    }

    /// The layers, in order.
    pub(crate) fn layers(&self) -> &[DecoderLayer] {
        &self.layers
    }

    /// The LM head.
    pub(crate) fn lm_head(&self) -> &Linear {
        &self.lm_head
    }

    /// Bytes of weights that one token reads when it leaves after `exit_layer` layers, head included.
    pub fn bytes_per_token(&self, exit_layer: usize) -> u64 {
        let row = self.embed_tokens.bytes() / self.config.vocab_size as u64;
        row + self.layer_bytes(exit_layer.min(self.layers.len())) + self.lm_head.bytes()
    }

    /// Bytes of the first `layers` layers, norms included, and of the final norm.
    fn layer_bytes(&self, layers: usize) -> u64 {
        let norm = size_of_val(self.norm.weight.as_slice()) as u64;
        let matrices = self.layers[..layers].iter().flat_map(DecoderLayer::linears).map(Linear::bytes);
        let sub_norms = self.layers[..layers].iter().flat_map(DecoderLayer::sub_norms);
        let sub_norms: usize = sub_norms.map(|norm| size_of_val(norm.weight.as_slice())).sum();
        matrices.sum::<u64>() + norm * (2 * layers as u64 + 1) + sub_norms as u64
    }

    /// Bytes of keys and values that one position adds to the first `exit_layer` layers.
    pub fn kv_bytes_per_position(&self, exit_layer: usize) -> u64 {
        let Config { num_hidden_layers, num_key_value_heads, head_dim, .. } = self.config;
        let layers = exit_layer.min(num_hidden_layers);
        (2 * self.kv_cache.bytes() * num_key_value_heads * head_dim * layers) as u64
    }

    /// Rotary angles for `positions`, unless they are at hand from the layer range before.
    fn turn(&self, positions: Range<usize>, angles: &mut Angles) {
        if angles.positions == positions {
            return;
        }
        let half = self.config.head_dim / 2;
        angles.cos.resize(positions.len() * half, 0.0);
        angles.sin.resize(positions.len() * half, 0.0);
        let rows = angles.cos.chunks_exact_mut(half).zip(angles.sin.chunks_exact_mut(half));
        for (position, (cos, sin)) in positions.clone().zip(rows) {
            self.rope.angles(position, cos, sin);
        }
        angles.positions = positions;
    }
}

/// Each number once.
pub(crate) fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
