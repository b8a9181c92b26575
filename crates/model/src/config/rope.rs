//! How positions rotate queries and keys, and how many positions a model takes.

use super::Config;
use super::limits::MAX_POSITIONS;

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RopeParameters {
    /// The base of the wavelengths.
    pub theta: f64,
    /// What was done to them for longer contexts.
    pub scaling: RopeScaling,
}

/// Hugging Face's `rope_type` and its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// None.
    Default,
    /// Every frequency is divided (Chen et al. 2023, position interpolation).
    Linear {
        /// What it is divided by, at least 1.
        factor: f64,
    },
    /// Past `max_position_embeddings` the base grows with the length of the text (NTK-aware scaling).
    Dynamic {
        /// How fast it grows, at least 1.
        factor: f64,
    },
    /// Low frequencies are divided, high ones kept, those between interpolated (Llama 3.1).
    Llama3 {
        /// What low frequencies are divided by, at least 1.
        factor: f64,
        /// Waves longer than the original context over this are low.
        low_freq_factor: f64,
        /// Waves shorter than the original context over this are high.
        high_freq_factor: f64,
        /// The context before scaling.
        original_max_position_embeddings: usize,
    },
    /// As Llama 3.1's, by the turns that a wave makes in the original context; scores are scaled too (Peng et
    /// al. 2023).
    Yarn(Yarn),
}

/// Parameters of YaRN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// What low frequencies are divided by, at least 1.
    pub factor: f64,
    /// The context before scaling.
    pub original_max_position_embeddings: usize,
    /// Frequencies that turn more often in the original context are kept.
    pub beta_fast: f64,
    /// Frequencies that turn less often in it are divided.
    pub beta_slow: f64,
    /// Whether the pairs between which frequencies are interpolated are rounded to whole ones.
    pub truncate: bool,
    /// What cosines and sines are multiplied by; none: what follows from the keys below, or else from
    /// `factor`.
    pub attention_factor: Option<f64>,
    /// Numerator of that factor, if both this and `mscale_all_dim` are given.
    pub mscale: Option<f64>,
    /// Denominator of that factor.
    pub mscale_all_dim: Option<f64>,
}

impl Yarn {
    /// Hugging Face's `beta_fast` where none is given.
    pub(crate) const BETA_FAST: f64 = 32.0;
    /// Hugging Face's `beta_slow` where none is given.
    pub(crate) const BETA_SLOW: f64 = 1.0;

    /// What cosines and sines are multiplied by.
    pub fn attention_factor(&self) -> f64 {
        let scale =
            |mscale: f64| if self.factor <= 1.0 { 1.0 } else { 0.1 * mscale * self.factor.ln() + 1.0 };
        match (self.attention_factor, self.mscale, self.mscale_all_dim) {
            (Some(factor), ..) => factor,
            (None, Some(mscale), Some(all_dim)) => scale(mscale) / scale(all_dim),
            _ => scale(1.0),
        }
    }
}

impl Config {
    /// The context: how many positions a text may take. `max_position_embeddings` is that before linear and
    /// dynamic scaling, after Llama 3.1's, and either with YaRN.
    pub fn context(&self) -> usize {
        let given = self.max_position_embeddings;
        let scaled =
            |positions: usize, factor: f64| ((positions as f64 * factor) as usize).min(MAX_POSITIONS);
        match self.rope.scaling {
            RopeScaling::Default | RopeScaling::Llama3 { .. } => given,
            RopeScaling::Linear { factor } | RopeScaling::Dynamic { factor } => scaled(given, factor),
            RopeScaling::Yarn(yarn) => given.max(scaled(yarn.original_max_position_embeddings, yarn.factor)),
        }
    }

    /// How many of these a prompt, or any text that is not generated, may take. With dynamic scaling,
    /// transformers rotates such a text by its whole length, and so differently where it comes in several
    /// calls: it is kept to the context before scaling, in which the length does not matter.
    pub fn prompt_context(&self) -> usize {
        match self.rope.scaling {
            RopeScaling::Dynamic { .. } => self.max_position_embeddings,
            _ => self.context(),
        }
    }
}
