//! A whole recipe: its sections, and the file that they come from.

use super::early_exit::EarlyExitKeys;
use super::layer_dropout::LayerDropoutKeys;
use super::model_keys::ModelKeys;
use super::optimizer::{OptimizerKeys, ScheduleKeys};
use super::sections::{
    AverageKeys, CheckpointKeys, DataKeys, StartKeys, Trained, TrainingKeys, ValidationKeys,
};
use crate::error::Error;
use offramp_model::Config;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The adapters of a recipe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Adapters {
    pub(crate) exits: Vec<usize>,
    pub(crate) rank: usize,
}

/// One training run's recipe. Fields are the sections of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// `[model]`: sizes and constants, in Hugging Face's words.
    pub model: ModelKeys,
    /// `[start]`: what to begin from.
    pub start: StartKeys,
    /// `[data]`: the corpus.
    pub data: DataKeys,
    /// `[training]`: the sizes of a batch, and the length of the run.
    pub training: TrainingKeys,
    /// `[optimizer]`: how gradients become updates.
    pub optimizer: OptimizerKeys,
    /// `[schedule]`: the learning rate over time.
    pub schedule: ScheduleKeys,
    /// `[layer_dropout]`: the probability of skipping each layer.
    pub layer_dropout: LayerDropoutKeys,
    /// `[early_exit]`: the exits' part of the loss.
    pub early_exit: EarlyExitKeys,
    /// `[averages]`: means of the weights over the steps.
    pub averages: AverageKeys,
    /// `[validation]`: when and where the validation split is measured.
    pub validation: ValidationKeys,
    /// `[checkpoint]`: when the run is saved, and how many are kept.
    pub checkpoint: CheckpointKeys,
    /// The config of the checkpoint to begin from.
    #[serde(skip)]
    pub(super) begins_as: Option<Config>,
    /// Whether it is read for a run that goes on, which has kept what it began with.
    #[serde(skip)]
    pub(super) resumes: bool,
    #[serde(skip)]
    pub(super) path: PathBuf,
    #[serde(skip)]
    pub(super) text: String,
}

impl Recipe {
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

    /// The exits that get a norm and an adapter, increasing, and the rank of these; none if the layers or the
    /// shared head learn.
    pub(crate) fn adapters(&self) -> Option<Adapters> {
        if self.start.train != Trained::ExitAdapters {
            return None;
        }
        let (keys, layers) = (&self.early_exit, self.model.num_hidden_layers);
        let mut exits = keys.adapter_exits.clone().unwrap_or_else(|| Config::quarters(layers));
        exits.retain(|&exit| exit < layers);
        exits.sort_unstable();
        exits.dedup();
        Some(Adapters { exits, rank: keys.adapter_rank.unwrap_or(self.model.hidden_size.div_ceil(4)) })
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
