//! A Llama whose depth is chosen at run time.

use crate::attention::Attention;
use crate::config::{Config, TensorSpec};
use crate::error::{Error, Result};
use crate::hidden::{Angles, Hidden};
use crate::kv_cache::{CacheFormat, KvCache};
use crate::layer::{DecoderLayer, Mlp, RmsNorm};
use crate::linear::Linear;
use crate::weights::{F32Storage, Weights};
use std::ops::Range;
use std::path::Path;

/// The model: embedding, layers, and the one exit head that serves every depth.
///
/// It is immutable; all state of a run is in a [`Hidden`] and a [`KvCache`].
#[derive(Clone, Debug)]
pub struct Llama {
    config: Config,
    embed_tokens: F32Storage, // [vocab, hidden]
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: Linear, // [vocab, hidden]; shares embed_tokens' storage if the config ties them
    rope: crate::rope::Rope,
}

impl Llama {
    /// Reads a Hugging Face folder: `config.json` and its safetensors.
    ///
    /// # Errors
    /// If a file cannot be read, or does not hold exactly the tensors that the config asks for.
    pub fn load(folder: &Path) -> Result<Self> {
        let config = Config::read(&folder.join("config.json"))?;
        let weights = Weights::open(folder, &config)?;
        Self::build(config, |spec| weights.take(spec))
    }

    /// A model over the weights that `take` gives for each tensor of [`Config::tensors`].
    ///
    /// # Errors
    /// What `take` returns, or a tensor of the wrong length.
    pub fn from_weights(
        config: Config,
        mut take: impl FnMut(&TensorSpec) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        config.validate(Path::new("config"))?;
        Self::build(config, |spec| take(spec).map(F32Storage::from))
    }

    fn build(config: Config, mut take: impl FnMut(&TensorSpec) -> Result<F32Storage>) -> Result<Self> {
        let mut take = |name: &str, shape: &[usize]| {
            let spec = TensorSpec { name: name.to_string(), shape: shape.to_vec() };
            let storage = take(&spec)?;
            match storage.as_slice().len() == spec.len() {
                true => Ok(storage),
                false => Err(Error::wrong_length(&spec, storage.as_slice().len())),
            }
        };
        let (hidden, vocab) = (config.hidden_size, config.vocab_size);
        let embed_tokens = take("model.embed_tokens.weight", &[vocab, hidden])?;
        let layers =
            (0..config.num_hidden_layers).map(|l| layer(&config, l, &mut take)).collect::<Result<_>>()?;
        let norm = rms_norm(&config, "model.norm.weight", &mut take)?;
        let head = match config.tie_word_embeddings {
            true => embed_tokens.clone(),
            false => take("lm_head.weight", &[vocab, hidden])?,
        };
        let rope = crate::rope::Rope::new(&config);
        Ok(Self { embed_tokens, layers, norm, lm_head: Linear::f32(head, hidden), rope, config })
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
        self.new_cache_in(CacheFormat::default(), capacity)
    }

    /// As [`new_cache`](Self::new_cache), in a format of one's choice.
    pub fn new_cache_in(&self, format: CacheFormat, capacity: usize) -> KvCache {
        let Config { num_hidden_layers, num_key_value_heads, head_dim, .. } = self.config;
        KvCache::new(num_hidden_layers, num_key_value_heads, head_dim, capacity, format)
    }

    /// Starts the residual stream of `tokens`; what `hidden` held before is gone. `hidden` stays with
    /// the model that made it: it remembers that model's rotary angles.
    ///
    /// # Errors
    /// If a token id is not in the vocabulary.
    pub fn embed(&self, tokens: &[u32], hidden: &mut Hidden) -> Result<()> {
        let (width, vocab) = (self.config.hidden_size, self.config.vocab_size);
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocab) {
            return Err(Error::UnknownToken { token, vocab_size: vocab });
        }
        hidden.stream.clear();
        for &token in tokens {
            let row = &self.embed_tokens.as_slice()[token as usize * width..][..width];
            hidden.stream.extend_from_slice(row);
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
        let tokens = hidden.tokens();
        if layers.is_empty() || tokens == 0 {
            return Ok(());
        }
        let before = cache.len(layers.start);
        assert!(layers.clone().all(|l| cache.len(l) == before), "layers {layers:?} hold different positions");
        if before + tokens > cache.capacity() {
            return Err(Error::CacheFull { positions: before + tokens, capacity: cache.capacity() });
        }
        layers.clone().try_for_each(|l| cache.layer_mut(l).reserve())?;
        self.turn(before..before + tokens, &mut hidden.scratch.angles);
        for l in layers {
            self.layers[l].forward(hidden, cache.layer_mut(l));
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
        let width = self.config.hidden_size;
        let Hidden { stream, scratch, .. } = hidden;
        self.norm.forward(&stream[rows.start * width..rows.end * width], &mut scratch.normed);
        self.lm_head.forward(&scratch.normed, logits);
    }

    /// Bytes of weights that one token reads when it leaves after `exit_layer` layers, head included.
    pub fn bytes_per_token(&self, exit_layer: usize) -> u64 {
        let norm = size_of_val(self.norm.weight.as_slice()) as u64;
        let layers = &self.layers[..exit_layer.min(self.layers.len())];
        let matrices = layers.iter().flat_map(DecoderLayer::linears).map(Linear::bytes).sum::<u64>();
        // One embedding row, two norms a layer, and the final one.
        matrices + self.lm_head.bytes() + norm * (2 * layers.len() as u64 + 2)
    }

    /// Bytes of keys and values that one position adds to the first `exit_layer` layers.
    pub fn kv_bytes_per_position(&self, exit_layer: usize) -> u64 {
        let Config { num_hidden_layers, num_key_value_heads, head_dim, .. } = self.config;
        let layers = exit_layer.min(num_hidden_layers);
        (2 * size_of::<f32>() * num_key_value_heads * head_dim * layers) as u64
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

type Take<'a> = dyn FnMut(&str, &[usize]) -> Result<F32Storage> + 'a;

fn rms_norm(config: &Config, name: &str, take: &mut Take<'_>) -> Result<RmsNorm> {
    Ok(RmsNorm { weight: take(name, &[config.hidden_size])?, eps: config.rms_norm_eps as f32 })
}

fn layer(config: &Config, index: usize, take: &mut Take<'_>) -> Result<DecoderLayer> {
    let Config { hidden_size: hidden, intermediate_size: inner, head_dim, .. } = *config;
    let (queries, keys) = (config.num_attention_heads * head_dim, config.num_key_value_heads * head_dim);
    let prefix = format!("model.layers.{index}");
    let mut linear = |name: &str, out: usize, into: usize| {
        Ok(Linear::f32(take(&format!("{prefix}.{name}.weight"), &[out, into])?, into))
    };
    let self_attn = Attention {
        q_proj: linear("self_attn.q_proj", queries, hidden)?,
        k_proj: linear("self_attn.k_proj", keys, hidden)?,
        v_proj: linear("self_attn.v_proj", keys, hidden)?,
        o_proj: linear("self_attn.o_proj", hidden, queries)?,
        head_dim,
    };
    let mlp = Mlp {
        gate_proj: linear("mlp.gate_proj", inner, hidden)?,
        up_proj: linear("mlp.up_proj", inner, hidden)?,
        down_proj: linear("mlp.down_proj", hidden, inner)?,
    };
    let mut norm = |name: &str| rms_norm(config, &format!("{prefix}.{name}.weight"), take);
    Ok(DecoderLayer {
        input_layernorm: norm("input_layernorm")?,
        self_attn,
        post_attention_layernorm: norm("post_attention_layernorm")?,
        mlp,
    })
}
