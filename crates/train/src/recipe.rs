//! A recipe: everything that one training run depends on, in one TOML file.
//!
//! Every key has a default, and the defaults are the model card's (`recipes/llama3-earlyexit.toml` writes
//! them all out); only `[data]` must be said. A key that no recipe has is an error that names the nearest
//! one that there is. What the keys mean is documented at the fields, which have their names.

mod check;
mod difference;
mod optimizer;
mod paths;
mod read;
mod sections;
#[cfg(test)]
mod tests;

pub use optimizer::{Matrices, OptimizerKeys, ScheduleKeys};
pub use paths::Paths;
pub use sections::{
    CheckpointKeys, Curriculum, DataKeys, EarlyExitKeys, ExitWeights, LayerDropoutKeys, LowBit, ModelKeys,
    Normalize, Precision, Shape, StartKeys, Time, Trained, TrainingKeys, ValidationKeys,
};

use crate::error::{Error, Result};
use offramp_model::run_folder;
use offramp_model::{BitLinear, Config, EarlyExit, Family, RopeParameters, RopeScaling};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One training run's recipe. Fields are the sections of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// `[model]`: sizes and constants, in Hugging Face's words.
    pub model: ModelKeys,
    /// `[start]`: what to begin from.
    pub start: StartKeys,
    /// `[data]`: what to learn from.
    pub data: DataKeys,
    /// `[training]`: how much of it, at a time and in all.
    pub training: TrainingKeys,
    /// `[optimizer]`: how gradients become steps.
    pub optimizer: OptimizerKeys,
    /// `[schedule]`: the learning rate over time.
    pub schedule: ScheduleKeys,
    /// `[layer_dropout]`: how often which layer is skipped.
    pub layer_dropout: LayerDropoutKeys,
    /// `[early_exit]`: the exits' part of the loss.
    pub early_exit: EarlyExitKeys,
    /// `[validation]`: when and where the validation split is measured.
    pub validation: ValidationKeys,
    /// `[checkpoint]`: when the run is saved, and how many are kept.
    pub checkpoint: CheckpointKeys,
    /// The config of the checkpoint to begin from.
    #[serde(skip)]
    begins_as: Option<Config>,
    #[serde(skip)]
    path: PathBuf,
    #[serde(skip)]
    text: String,
}

impl Recipe {
    /// Reads and checks a recipe.
    ///
    /// # Errors
    /// If the file cannot be read, or as [`Recipe::from_toml`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::read(path, error))?;
        Self::from_toml(&text, path)
    }

    /// Reads and checks the text of a recipe; `origin` names it in errors.
    ///
    /// # Errors
    /// If it is not TOML, has a key that no recipe has, or a value of the wrong type or an impossible one.
    pub fn from_toml(text: &str, origin: &Path) -> Result<Self> {
        Self::with_sizes_of(text, origin, None)
    }

    /// As [`Recipe::read`], for the run in a folder, which knows the sizes that it began with: the model of
    /// `start.checkpoint` need not be there any more.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub fn read_for_run(path: &Path, run: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| Error::read(path, error))?;
        Self::with_sizes_of(&text, path, Some(run))
    }

    fn with_sizes_of(text: &str, origin: &Path, run: Option<&Path>) -> Result<Self> {
        let parsed = read::parse(text, origin)?;
        let mut recipe = Self { path: origin.to_owned(), text: text.to_owned(), ..parsed };
        recipe.take_sizes(run)?;
        check::check(&recipe)?;
        Ok(recipe)
    }

    /// Fills `[model]` with the sizes of the checkpoint to begin from, if there is one; those that `run` has kept
    /// come first.
    fn take_sizes(&mut self, run: Option<&Path>) -> Result<()> {
        let Some(checkpoint) = &self.start.checkpoint else { return Ok(()) };
        if self.model != ModelKeys::default() {
            let expected = "left out where start.checkpoint brings its own sizes";
            return Err(self.fault("[model]", "given", expected));
        }
        let kept = run.map(|run| run.join(run_folder::START)).filter(|kept| kept.is_file());
        let config = match kept {
            Some(kept) => Config::read(&kept)?,
            None => Config::read(&checkpoint.join(run_folder::CONFIG))
                .or_else(|error| run.and_then(sizes_of_newest).ok_or(error))?,
        };
        self.model = ModelKeys::from(&config);
        self.begins_as = Some(config);
        Ok(())
    }

    /// The config of the model to begin from, if there is one.
    pub(crate) fn begins_as(&self) -> Option<&Config> {
        self.begins_as.as_ref()
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text it was read from, comments and all.
    pub fn text(&self) -> &str {
        &self.text
    }

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
            family: Family::default(),
            tie_word_embeddings: model.tie_word_embeddings,
            bos_token_id: end_of_text,
            eos_token_ids: end_of_text.into_iter().collect(),
            early_exit: None,
            bit_linear: model.bit_linear.map(BitLinear::from),
            quantization: None,
        };
        // First the sizes: what follows is as long as the model is deep.
        sizes.validate(&self.path)?;
        let config = Config { early_exit: Some(self.early_exit_block()?), ..sizes };
        config.validate(&self.path)?;
        Ok(config)
    }

    /// The exit layers to validate at, increasing: those of `validation.exits`, or a quarter, half and three
    /// quarters of the depth, and the full model.
    pub fn validation_exits(&self) -> Vec<usize> {
        let layers = self.model.num_hidden_layers;
        let mut exits = self.validation.exits.clone().unwrap_or_else(|| Config::quarters(layers));
        exits.push(layers);
        exits.sort_unstable();
        exits.dedup();
        exits
    }

    /// What the model's `config.json` will say of how it was trained.
    fn early_exit_block(&self) -> Result<EarlyExit> {
        let chances = crate::dropout::Chances::new(self)?;
        Ok(EarlyExit {
            early_exit_loss_scale: self.early_exit.loss_scale,
            curriculum: self.early_exit.curriculum.name().to_owned(),
            layer_dropout: self.layer_dropout.shape.name().to_owned(),
            layer_dropout_max: chances.largest(),
        })
    }

    /// The first key in which the run of `other` must not go on as `self`: its name, and its value in `self` and in
    /// `other`. When a run is measured and saved may change, and how far it goes; so may paths: data are compared by
    /// their contents, and what a run began from is in it.
    pub(crate) fn difference(&self, other: &Self) -> Option<(String, String, String)> {
        difference::first(self, other)
    }

    /// An impossible value.
    pub(crate) fn fault(&self, key: &str, found: impl ToString, expected: impl ToString) -> Error {
        Error::Recipe {
            path: self.path.clone(),
            key: key.to_owned(),
            found: found.to_string(),
            expected: expected.to_string(),
        }
    }
}

/// The sizes of a run that was begun before runs kept them: those of its newest checkpoint, unless that could be of
/// either of two kinds.
fn sizes_of_newest(run: &Path) -> Option<Config> {
    let (_, newest) = run_folder::steps(run).ok()?.pop()?;
    let config = Config::read(&newest.join(run_folder::CONFIG)).ok()?;
    // A model whose activations get 4 bits later has 8 until then.
    config.bit_linear.is_none_or(|bit_linear| !bit_linear.hadamard).then_some(config)
}
