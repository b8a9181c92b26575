//! `[model]`: the sizes and constants of a model, with the model card's values as defaults.

use offramp_kernels::bit_linear::Activations;
use offramp_model::{BitLinear, Config, Family, ModelType, SlidingWindow};
use serde::{Deserialize, Serialize};

/// `[model]`: the keys of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelKeys {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, a divisor of the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; `hidden_size / num_attention_heads` if left out.
    pub head_dim: Option<usize>,
    /// Token ids; 0 is the tokenizer's number of them.
    pub vocab_size: usize,
    /// The context that the model is made for, at least `training.sequence_length`.
    pub max_position_embeddings: usize,
    /// The base of the rotary wavelengths.
    pub rope_theta: f64,
    /// What RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// Whether the LM head is the embedding.
    pub tie_word_embeddings: bool,
    /// Standard deviation of the first weights.
    pub initializer_range: f64,
    /// Which of the low-bit family it is; floats if left out.
    pub bit_linear: Option<LowBit>,
    /// The family, by Hugging Face's name.
    pub model_type: ModelTypeKey,
    /// Whether q, k, v and o have biases. Those of `qwen2`, of q, k and v only, are not meant.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
    /// How many tokens a token of `mistral` sees, itself among them; all so far if left out.
    pub sliding_window: Option<usize>,
    /// Every so many layers of `smollm3` one does not rotate queries and keys; all rotate if left out.
    pub no_rope_layer_interval: Option<usize>,
}

/// `model.model_type`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelTypeKey {
    /// The plain one.
    #[default]
    Llama,
    /// May have a sliding window.
    Mistral,
    /// Has biases of q, k and v.
    Qwen2,
    /// Has norms of queries and keys.
    Qwen3,
    /// May have layers without rotation.
    SmolLm3,
}

impl From<ModelType> for ModelTypeKey {
    fn from(model_type: ModelType) -> Self {
        match model_type {
            ModelType::Llama => Self::Llama,
            ModelType::Mistral => Self::Mistral,
            ModelType::Qwen2 => Self::Qwen2,
            ModelType::Qwen3 => Self::Qwen3,
            ModelType::SmolLm3 => Self::SmolLm3,
        }
    }
}

impl From<ModelTypeKey> for ModelType {
    fn from(key: ModelTypeKey) -> Self {
        match key {
            ModelTypeKey::Llama => Self::Llama,
            ModelTypeKey::Mistral => Self::Mistral,
            ModelTypeKey::Qwen2 => Self::Qwen2,
            ModelTypeKey::Qwen3 => Self::Qwen3,
            ModelTypeKey::SmolLm3 => Self::SmolLm3,
        }
    }
}

impl ModelKeys {
    /// The family that the keys describe.
    pub(super) fn family(&self) -> Family {
        let layers = self.num_hidden_layers;
        let interval = self.no_rope_layer_interval.unwrap_or(usize::MAX).max(1);
        Family {
            model_type: self.model_type.into(),
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            no_rope_layers: (0..layers).filter(|layer| (layer + 1).is_multiple_of(interval)).collect(),
            sliding_window: self
                .sliding_window
                .map(|size| SlidingWindow { size, layers: (0..layers).collect() }),
        }
    }
}

/// `model.bit_linear`: the layers' seven projections are ternary, their inputs rounded to codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LowBit {
    /// 8-bit activations (BitNet b1.58).
    #[serde(rename = "bitskip-v1")]
    V1,
    /// 8-bit activations, then 4-bit ones, and a Hadamard rotation before `o_proj` and `down_proj` (BitNet
    /// v2).
    #[serde(rename = "bitskip-v2")]
    V2,
    /// 8-bit activations and the rotation.
    #[serde(rename = "bitskip-v3")]
    V3,
}

impl From<BitLinear> for LowBit {
    fn from(bit_linear: BitLinear) -> Self {
        match (bit_linear.activations, bit_linear.hadamard) {
            (Activations::Int8, false) => Self::V1,
            (Activations::Int4, _) => Self::V2,
            (Activations::Int8, true) => Self::V3,
        }
    }
}

impl From<LowBit> for BitLinear {
    fn from(low_bit: LowBit) -> Self {
        match low_bit {
            LowBit::V1 => Self::V1,
            LowBit::V2 => Self::V2,
            LowBit::V3 => Self::V3,
        }
    }
}

impl Default for ModelKeys {
    fn default() -> Self {
        Self {
            hidden_size: 2048,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            head_dim: None,
            vocab_size: 0,
            max_position_embeddings: 512,
            rope_theta: 10_000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: false,
            initializer_range: 0.02,
            bit_linear: None,
            model_type: ModelTypeKey::Llama,
            attention_bias: false,
            mlp_bias: false,
            sliding_window: None,
            no_rope_layer_interval: None,
        }
    }
}

impl From<&Config> for ModelKeys {
    /// The keys of an existing model.
    fn from(config: &Config) -> Self {
        Self {
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            num_hidden_layers: config.num_hidden_layers,
            num_attention_heads: config.num_attention_heads,
            num_key_value_heads: config.num_key_value_heads,
            head_dim: Some(config.head_dim),
            vocab_size: config.vocab_size,
            max_position_embeddings: config.max_position_embeddings,
            rope_theta: config.rope.theta,
            rms_norm_eps: config.rms_norm_eps,
            tie_word_embeddings: config.tie_word_embeddings,
            bit_linear: config.bit_linear.map(LowBit::from),
            model_type: config.family.model_type.into(),
            attention_bias: config.family.attention_bias,
            mlp_bias: config.family.mlp_bias,
            // Windows and layers without rotation may stand in any layers there: the config itself is used.
            ..Self::default()
        }
    }
}
