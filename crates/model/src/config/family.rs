//! The families of Llama-like models: what each has that a plain Llama has not.

use super::Config;
use std::collections::BTreeSet;

/// Hugging Face's `model_type` of a family. SmolLM2 is a `llama`; a `bitnet` is one with
/// [`Config::bit_linear`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ModelType {
    /// The plain one.
    #[default]
    Llama,
    /// With a sliding window in every layer, or in none.
    Mistral,
    /// With biases of q, k and v. Qwen2.5 is one.
    Qwen2,
    /// With norms of queries and keys.
    Qwen3,
    /// With layers that do not rotate.
    SmolLm3,
}

impl ModelType {
    /// Every family.
    pub const ALL: [Self; 5] = [Self::Llama, Self::Mistral, Self::Qwen2, Self::Qwen3, Self::SmolLm3];

    /// The `model_type` in a `config.json`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Mistral => "mistral",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::SmolLm3 => "smollm3",
        }
    }

    /// The class in `transformers`, which `architectures` names.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::Llama => "LlamaForCausalLM",
            Self::Mistral => "MistralForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::SmolLm3 => "SmolLM3ForCausalLM",
        }
    }

    /// Whether `attention_bias` is a key of its config.
    pub(super) const fn knows_attention_bias(self) -> bool {
        matches!(self, Self::Llama | Self::Qwen3 | Self::SmolLm3)
    }

    /// Whether `mlp_bias` is.
    pub(super) const fn knows_mlp_bias(self) -> bool {
        matches!(self, Self::Llama | Self::SmolLm3)
    }

    /// Whether `use_sliding_window` and `layer_types` are.
    pub(super) const fn knows_layer_types(self) -> bool {
        matches!(self, Self::Qwen2 | Self::Qwen3 | Self::SmolLm3)
    }
}

/// What a family has that a plain Llama has not; the default is a plain Llama.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Family {
    /// Which one it is.
    pub model_type: ModelType,
    /// Whether q, k, v and o have biases. Those of Qwen2, of q, k and v alone, are not meant.
    pub attention_bias: bool,
    /// Whether gate, up and down have biases.
    pub mlp_bias: bool,
    /// The layers that do not rotate queries and keys.
    pub no_rope_layers: BTreeSet<usize>,
    /// The sliding window, if any layer has one.
    pub sliding_window: Option<SlidingWindow>,
}

/// Attention that sees only the last tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlidingWindow {
    /// How many tokens a token sees, itself among them: the one at position p sees p − size + 1 to p.
    pub size: usize,
    /// The layers that have it.
    pub layers: BTreeSet<usize>,
}

/// What may differ between the attentions of two layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerAttention {
    /// Whether queries and keys are rotated to their positions.
    pub rotates: bool,
    /// How many tokens a token sees, itself among them; none: all before it.
    pub window: Option<usize>,
}

impl LayerAttention {
    /// The first position that the token at `position` sees.
    pub fn first_visible(&self, position: usize) -> usize {
        self.window.map_or(0, |window| (position + 1).saturating_sub(window))
    }
}

impl Config {
    /// What the attention of a layer is.
    pub fn layer_attention(&self, layer: usize) -> LayerAttention {
        let Family { no_rope_layers, sliding_window, .. } = &self.family;
        let window = sliding_window.as_ref().filter(|window| window.layers.contains(&layer));
        LayerAttention { rotates: !no_rope_layers.contains(&layer), window: window.map(|window| window.size) }
    }

    /// Whether queries and keys are normed, head by head, before they are rotated.
    pub fn has_qk_norm(&self) -> bool {
        self.family.model_type == ModelType::Qwen3
    }

    /// Whether q, k and v have biases.
    pub(super) fn has_qkv_bias(&self) -> bool {
        self.family.attention_bias || self.family.model_type == ModelType::Qwen2
    }

    /// Whether any matrix of a layer has a bias.
    pub fn has_bias(&self) -> bool {
        self.has_qkv_bias() || self.family.mlp_bias
    }
}
