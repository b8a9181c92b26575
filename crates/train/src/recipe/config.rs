//! The model that a recipe makes.

use super::whole::Recipe;
use crate::error::{Error, Result};
use offramp_model::{BitLinear, Config, EarlyExit, Family, RopeParameters, RopeScaling};

impl Recipe {
    /// The model that the recipe makes with a tokenizer of `tokenizer_vocab_size` ids, whose end of text
    /// is `end_of_text`. Allocates none of it.
    ///
    /// # Errors
    /// If `model.vocab_size` is smaller than the tokenizer's, or the sizes are impossible.
    pub fn config(&self, tokenizer_vocab_size: usize, end_of_text: Option<u32>) -> Result<Config> {
        let model = &self.model;
        let vocab_size = if model.vocab_size == 0 { tokenizer_vocab_size } else { model.vocab_size };
        if vocab_size < tokenizer_vocab_size {
            let expected =
                format!("at least the tokenizer's {tokenizer_vocab_size}, or left out to be exactly that");
            return Err(self.fault("model.vocab_size", vocab_size, expected));
        }
        if let Some(config) = &self.begins_as {
            return Ok(Config { early_exit: Some(self.early_exit_block()?), ..config.clone() });
        }
        let sizes = Config {
            hidden_size: model.hidden_size,
            intermediate_size: model.intermediate_size,
            num_hidden_layers: model.num_hidden_layers,
            num_attention_heads: model.num_attention_heads,
            num_key_value_heads: model.num_key_value_heads,
            head_dim: model.head_dim.unwrap_or(model.hidden_size / model.num_attention_heads.max(1)),
            vocab_size,
            max_position_embeddings: model.max_position_embeddings,
            rms_norm_eps: model.rms_norm_eps,
            rope: RopeParameters { theta: model.rope_theta, scaling: RopeScaling::Default },
            family: Family::default(), // filled below, as it is as long as the model is deep
            tie_word_embeddings: model.tie_word_embeddings,
            bos_token_id: end_of_text,
            eos_token_ids: end_of_text.into_iter().collect(),
            early_exit: None,
            bit_linear: model.bit_linear.map(BitLinear::from),
            quantization: None,
        };
        // Sizes first: the early-exit block takes time and memory for every layer.
        sizes.validate(&self.path)?;
        let config = Config { family: model.family(), early_exit: Some(self.early_exit_block()?), ..sizes };
        config.validate(&self.path)?;
        Ok(config)
    }

    /// The block of the model's `config.json` that says how it was trained.
    fn early_exit_block(&self) -> Result<EarlyExit> {
        let fault = |reason| Error::LayerDropout { path: self.path.clone(), reason };
        let keys = &self.layer_dropout;
        let probabilities = keys.probabilities(self.model.num_hidden_layers).map_err(fault)?;
        Ok(EarlyExit {
            early_exit_loss_scale: self.early_exit.loss_scale,
            curriculum: self.early_exit.curriculum.name().to_owned(),
            layer_dropout: keys.shape.name().to_owned(),
            layer_dropout_max: probabilities.into_iter().fold(0.0, f64::max),
        })
    }
}
