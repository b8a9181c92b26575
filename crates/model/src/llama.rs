//! A Llama whose depth is chosen at run time.

mod build;

use crate::batch::Batch;
use crate::block_pool::{BlockPool, BlockShape};
use crate::config::Config;
use crate::error::Result;
use crate::exit_adapters::{self, ExitAdapters};
use crate::format::{CacheFormat, Formats};
use crate::hidden::Hidden;
use crate::kv_cache::KvCache;
use crate::layer::DecoderLayer;
use crate::linear::Linear;
use crate::memory;
use crate::norm::RmsNorm;
use crate::scratch::{Angles, Scratch};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The model: embedding, layers, and the one exit head that serves every depth.
///
/// It is immutable; the state of a text is in a [`Hidden`] and a [`KvCache`], and a caller lends its
/// [`Scratch`].
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
    exits: Option<Arc<ExitAdapters>>,
}

impl Llama {
    /// A number that no other model of this process has: clones share it, models that were loaded or made
    /// apart do not, even if they are alike. What was learnt or made of one model is known by it.
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
        let layers: u64 = self.layers.iter().map(DecoderLayer::bytes).sum();
        let exits = self.exits.as_ref().map_or(0, |exits| exits.bytes());
        self.embed_tokens.bytes() + layers + self.norm.bytes() + head + exits
    }

    /// What this model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty residual stream for this model.
    pub fn new_hidden(&self) -> Hidden {
        Hidden::new(self.config.hidden_size)
    }

    /// An empty cache for `capacity` positions, in a pool of its own; [`Llama::forward`] asks for the memory.
    pub fn new_cache(&self, capacity: usize) -> KvCache {
        let pool = BlockPool::new(self.block_shape(), capacity);
        KvCache::new(&pool, capacity).expect("a pool of as many blocks")
    }

    /// A pool of blocks for `positions` positions of all texts together.
    ///
    /// # Errors
    /// [`Error::NoMemory`](crate::Error::NoMemory) if the memory has no space for it once it is full.
    pub fn new_pool(&self, positions: usize) -> Result<Arc<BlockPool>> {
        BlockPool::checked(self.block_shape(), positions)
    }

    fn block_shape(&self) -> BlockShape {
        let Config { num_hidden_layers: layers, num_key_value_heads: kv_heads, head_dim, .. } = self.config;
        BlockShape { layers, kv_heads, head_dim, format: self.kv_cache }
    }

    /// Checks that the memory has room for a cache of `capacity` positions, filled to the last.
    ///
    /// # Errors
    /// [`Error::NoMemory`](crate::Error::NoMemory).
    pub fn check_cache(&self, capacity: usize) -> Result<()> {
        let bytes = self.kv_bytes_per_position(self.layers.len()).saturating_mul(capacity as u64);
        memory::check(&format!("a cache of {capacity} positions"), bytes)
    }

    /// Starts the residual streams of `tokens`; what `hidden` held before is gone.
    ///
    /// # Errors
    /// If a token id is not in the vocabulary.
    pub fn embed(&self, tokens: &[u32], hidden: &mut Hidden) -> Result<()> {
        tokens.iter().try_for_each(|&token| self.config.check_token(token))?;
        hidden.clear();
        hidden.depths.resize(tokens.len(), 0);
        hidden.hidden_size = self.config.hidden_size;
        for &token in tokens {
            self.embed_tokens.append_row(token as usize, &mut hidden.stream);
        }
        Ok(())
    }

    /// Moves `hidden` in place through `layers` and appends their keys and values to the caches of `batch`,
    /// which says which rows of `hidden` belong to which text. Rows follow the positions that the range's
    /// layers hold of their text.
    ///
    /// Every depth in this project is one call: the whole model is `0..L`, an early exit and a draft are
    /// `0..e`, and verification is `e..L` over the same hidden states. A row's bits depend on its own text
    /// alone.
    ///
    /// # Errors
    /// If a cache has no room for its rows, its pool no blocks, or the machine no memory for them; then no
    /// cache holds more than before.
    ///
    /// # Panics
    /// If the range leaves the model, `batch` has another number of rows than `hidden`, or the layers of a
    /// cache hold different numbers of positions: truncate it to the shortest first.
    pub fn forward(
        &self,
        layers: Range<usize>,
        hidden: &mut Hidden,
        batch: &mut Batch<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        if self.prepare(layers.clone(), hidden, batch, scratch)? {
            for index in layers.clone() {
                self.layers[index].forward(index, hidden, batch, scratch);
            }
            hidden.depths.fill(layers.end);
            scratch.work += self.forward_work(layers, batch);
        }
        Ok(())
    }

    /// Appends keys and values of `layers` for tokens that left before them, each layer's own projections of
    /// the state in which they left (Schuster et al. 2022, CALM, section 3.4): tokens to come can so attend
    /// to them. `hidden` stays as it is. The positions follow those that the layers hold.
    ///
    /// # Errors
    /// As [`Llama::forward`].
    ///
    /// # Panics
    /// As [`Llama::forward`].
    pub fn fill(
        &self,
        layers: Range<usize>,
        hidden: &Hidden,
        batch: &mut Batch<'_>,
        scratch: &mut Scratch,
    ) -> Result<()> {
        if self.prepare(layers.clone(), hidden, batch, scratch)? {
            for index in layers.clone() {
                self.layers[index].fill(index, hidden, batch, scratch);
            }
            scratch.work += self.fill_work(layers, hidden.tokens());
        }
        Ok(())
    }

    /// Makes sure of blocks in the caches, and of the angles of the rows' positions; whether there is
    /// anything to do.
    fn prepare(
        &self,
        layers: Range<usize>,
        hidden: &Hidden,
        batch: &mut Batch<'_>,
        scratch: &mut Scratch,
    ) -> Result<bool> {
        let rows = hidden.tokens();
        batch.fit(rows);
        if layers.is_empty() || rows == 0 {
            return Ok(false);
        }
        batch.place(layers)?;
        let needed = self.missing(rows, scratch).saturating_add(batch.unreserved());
        memory::check(&format!("{rows} tokens, in a cache of {} positions", batch.capacity()), needed)?;
        batch.reserve()?;
        self.set_angles(batch, &mut scratch.angles);
        Ok(true)
    }

    /// Bytes that a layer needs for so many rows beyond those that `scratch` holds.
    fn missing(&self, rows: usize, scratch: &Scratch) -> u64 {
        let Config { hidden_size, intermediate_size: inner, head_dim, .. } = self.config;
        let heads = self.config.num_attention_heads.saturating_add(self.config.num_key_value_heads);
        let width =
            [hidden_size.saturating_mul(4), heads.saturating_mul(2 * head_dim), inner.saturating_mul(3)];
        scratch.missing(rows, width.into_iter().fold(0, usize::saturating_add), inner)
    }

    /// Logits of some of the tokens, from whatever depth each stands at, through the one shared norm and LM
    /// head; where the exit has a norm and an adapter of its own, through these and the shared LM head.
    ///
    /// # Shapes
    /// `logits`: resized to `[rows, vocab]`
    ///
    /// # Panics
    /// If `rows` leaves the tokens in flight.
    pub fn head(&self, hidden: &Hidden, rows: Range<usize>, logits: &mut Vec<f32>, scratch: &mut Scratch) {
        scratch.work += self.head_work(None, rows.len());
        self.norm_rows(hidden, rows, scratch);
        self.lm_head.forward(&scratch.normed, &mut scratch.operand, logits);
    }

    /// The final norm of some of the tokens, or that of their exit, which the LM head reads: `[rows,
    /// hidden]`.
    ///
    /// # Panics
    /// If `rows` leaves the tokens in flight.
    pub fn final_norm<'s>(&self, hidden: &Hidden, rows: Range<usize>, scratch: &'s mut Scratch) -> &'s [f32] {
        self.norm_rows(hidden, rows, scratch);
        &scratch.normed
    }

    /// The same, left in the scratch.
    pub(crate) fn norm_rows(&self, hidden: &Hidden, rows: Range<usize>, scratch: &mut Scratch) {
        let width = self.config.hidden_size;
        let stream = &hidden.stream[rows.start * width..rows.end * width];
        let Some(adapters) = &self.exits else { return self.norm.forward(stream, &mut scratch.normed) };
        let Scratch { normed, residual, adapter, work, .. } = scratch;
        normed.clear();
        for (depth, rows) in exit_adapters::runs(&hidden.depths[rows]) {
            let stream = &stream[rows.start * width..rows.end * width];
            match adapters.append(depth, stream, adapter, normed) {
                Some(more) => *work += more,
                None => {
                    self.norm.forward(stream, residual);
                    normed.extend_from_slice(residual);
                }
            }
        }
    }

    /// The exits that have a norm and an adapter of their own, shallow first; none of a model whose exits all
    /// share the final norm.
    pub fn adapter_exits(&self) -> Vec<usize> {
        self.exits.iter().flat_map(|exits| exits.exits()).collect()
    }

    /// A model with these layers between the same embedding, norm and head.
    pub(crate) fn with_layers(&self, config: Config, layers: Vec<DecoderLayer>) -> Self {
        Self { id: new_id(), config, layers, ..self.clone() }
    }

    /// The layers, in order.
    pub(crate) fn layers(&self) -> &[DecoderLayer] {
        &self.layers
    }

    /// The token embedding.
    pub(crate) fn embed_tokens(&self) -> &Linear {
        &self.embed_tokens
    }

    /// The norm before the head.
    pub(crate) fn norm(&self) -> &RmsNorm {
        &self.norm
    }

    /// How the cache is kept.
    pub(crate) fn cache_format(&self) -> CacheFormat {
        self.kv_cache
    }

    /// The LM head.
    pub(crate) fn lm_head(&self) -> &Linear {
        &self.lm_head
    }

    /// Rotary angles of the rows' positions, unless they are at hand from the layers before.
    fn set_angles(&self, batch: &Batch<'_>, angles: &mut Angles) {
        if angles.model == Some(self.id) && batch.positions().eq(angles.positions.iter().copied()) {
            return;
        }
        let half = self.config.head_dim / 2;
        angles.model = Some(self.id);
        angles.positions.clear();
        angles.positions.extend(batch.positions());
        angles.cos.resize(angles.positions.len() * half, 0.0);
        angles.sin.resize(angles.positions.len() * half, 0.0);
        let rows = angles.cos.chunks_exact_mut(half).zip(angles.sin.chunks_exact_mut(half));
        for (&position, (cos, sin)) in angles.positions.iter().zip(rows) {
            self.rope.angles(position, cos, sin);
        }
    }
}

/// Each number once.
pub(crate) fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
