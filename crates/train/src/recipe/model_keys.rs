//! `[model]`: the sizes and constants of a model, with the model card's values as defaults.

use offramp_kernels::bit_linear::Activations;
use offramp_model::{BitLinear, Config};
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
}

/// `model.bit_linear`: the layers' seven projections are ternary, their inputs rounded to codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LowBit {
    /// 8-bit activations (BitNet b1.58).
    #[serde(rename = "bitskip-v1")]
    V1,
    /// 8-bit activations, then 4-bit ones, and a Hadamard rotation before `o_proj` and `down_proj` (BitNet v2).
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
            ..Self::default()
        }
    }
}
