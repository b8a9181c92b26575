//! `config.json`: the sizes and constants of a model, in Hugging Face's words.

mod bit_linear;
mod defaults;
mod family;
mod limits;
mod quantization;
mod read;
mod rope;
mod tensors;
#[cfg(test)]
mod tests;
mod write;

pub use bit_linear::BitLinear;
pub(crate) use defaults::blamed;
pub use family::{Family, LayerAttention, ModelType, SlidingWindow};
pub use quantization::{Quantization, WeightScale};
pub use rope::{RopeParameters, RopeScaling, Yarn};
pub use tensors::LayerTensor;
pub(crate) use write::rope_scaling;

use crate::error::{Error, Result};
use crate::format::Format;
use crate::text_file::read_text;
use std::path::Path;

/// What a model is made of. Fields are the keys of Hugging Face's `config.json`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Decoder layers, and so the deepest exit.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; each serves `num_attention_heads / num_key_value_heads` query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; `hidden_size / num_attention_heads` unless the file says otherwise.
    pub head_dim: usize,
    /// Token ids are below this.
    pub vocab_size: usize,
    /// Positions that the model was made for; [`Config::context`] is how many it takes.
    pub max_position_embeddings: usize,
    /// What RMSNorm adds to the mean square.
    pub rms_norm_eps: f64,
    /// How positions rotate queries and keys.
    pub rope: RopeParameters,
    /// The family, and what it has beyond a plain Llama.
    pub family: Family,
    /// Whether the LM head is the token embedding.
    pub tie_word_embeddings: bool,
    /// The token that begins a text, if any.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// What early-exit training did, if there was any.
    pub early_exit: Option<EarlyExit>,
    /// The kind of the layers' projections, if they are ternary.
    pub bit_linear: Option<BitLinear>,
    /// The number formats of the folder, if its tensors are not all floats.
    pub quantization: Option<Quantization>,
}

/// The `early_exit` block of a config: how training made the exits, for those who read the folder.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct EarlyExit {
    /// Weight of the early-exit loss beside the last layer's.
    pub early_exit_loss_scale: f64,
    /// The exits that were active in each step: `none`, `all`, `rotational`, `gradual` or `sampled`.
    pub curriculum: String,
    /// How the chance of dropping a layer grows with depth: `none`, `quadratic`, `linear`, `exponential`.
    pub layer_dropout: String,
    /// The largest of those chances.
    pub layer_dropout_max: f64,
}

impl Config {
    /// Whether training gave exits a loss, as far as the folder says.
    pub fn trained_for_exits(&self) -> bool {
        self.early_exit.as_ref().is_some_and(|training| training.curriculum != "none")
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`Config::from_json`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_json(&read_text(path)?, path)
    }

    /// Reads the text of a `config.json`; `origin` names it in errors. Keys that do not change what the model
    /// computes are ignored. Keys that are missing have the value that `transformers` assumes.
    ///
    /// # Errors
    /// If it is not JSON, a key has a value that is not supported, or a key has another name than Hugging
    /// Face's.
    pub fn from_json(text: &str, origin: &Path) -> Result<Self> {
        let config = read::parse(text, origin)?;
        config.validate(origin).map_err(|error| defaults::explained(error, text))?;
        Ok(config)
    }

    /// The text of a `config.json`. `transformers` 4.45 and 5.x read it alike; that of a quantized folder
    /// they refuse.
    pub fn to_json(&self) -> String {
        self.to_json_of(if self.quantization.is_some() { Format::Bf16 } else { Format::F32 })
    }

    /// As [`Config::to_json`], where most floats are of this format.
    pub(crate) fn to_json_of(&self, floats: Format) -> String {
        write::config_json(self, floats)
    }

    /// The text of the `generation_config.json` that goes with it.
    pub fn generation_json(&self) -> String {
        write::generation_json(self)
    }

    /// Checks that such a model can exist, without making any part of it; `origin` names it in errors.
    ///
    /// # Errors
    /// The first key whose value is impossible, alone or together with the others.
    pub fn validate(&self, origin: &Path) -> Result<()> {
        limits::check(self).map_err(|limits::Fault { key, found, expected }| Error::Config {
            path: origin.to_owned(),
            key: key.to_owned(),
            found,
            expected,
        })
    }

    /// The exit layers at a quarter, half and three quarters of a depth, and the full depth: the card's 6,
    /// 12, 18 and 24.
    pub fn quarters(num_hidden_layers: usize) -> Vec<usize> {
        let mut exits: Vec<_> = (1..=4).map(|quarter| (num_hidden_layers * quarter / 4).max(1)).collect();
        exits.dedup();
        exits
    }

    /// Checks that the model can be left after `exit_layer` layers.
    ///
    /// # Errors
    /// If it is not `1..=num_hidden_layers`.
    pub fn check_exit_layer(&self, exit_layer: usize) -> Result<()> {
        match (1..=self.num_hidden_layers).contains(&exit_layer) {
            true => Ok(()),
            false => Err(Error::ExitLayer { found: exit_layer, layers: self.num_hidden_layers }),
        }
    }

    /// Checks that a token is in the vocabulary.
    ///
    /// # Errors
    /// If it is not below `vocab_size`.
    pub fn check_token(&self, token: u32) -> Result<()> {
        match (token as usize) < self.vocab_size {
            true => Ok(()),
            false => Err(Error::UnknownToken { token, vocab_size: self.vocab_size }),
        }
    }

    /// The number of parameters; a tied head counts once.
    pub fn parameter_count(&self) -> u64 {
        self.checked_parameter_count().expect("validate() has bounded the sizes")
    }
}
