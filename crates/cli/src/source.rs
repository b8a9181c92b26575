//! The model that a command uses: a folder's, or the one that the program contains.

use anyhow::Result;
use offramp_models::TINYSTORIES_24;
use offramp_pipeline::{Carried, ModelSource};
use std::path::PathBuf;

/// The folder, as a positional argument or as an option.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgument {
    /// A model folder, or a run folder [default: the model that comes with offramp]
    model: Option<PathBuf>,
    /// The same, as an option
    #[arg(long = "model", id = "model_folder", value_name = "FOLDER", conflicts_with = "model", hide = true)]
    named: Option<PathBuf>,
}

impl ModelArgument {
    pub(crate) fn source(&self) -> Result<ModelSource> {
        match self.model.as_ref().or(self.named.as_ref()) {
            Some(path) => Ok(ModelSource::resolve(path)?),
            None => Ok(carried()),
        }
    }
}

/// The model that the program contains.
pub(crate) fn carried() -> ModelSource {
    let model = TINYSTORIES_24;
    let (name, config) = (model.name, model.config);
    ModelSource::Carried(Carried { name, config, weights: model.weights, tokenizer: model.tokenizer })
}
