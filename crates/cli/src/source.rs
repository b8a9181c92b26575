//! The model that a command works on: a folder's, or the one that the program carries.

use anyhow::Result;
use offramp_models::TINYSTORIES_24;
use offramp_pipeline::{Carried, Source};
use std::path::PathBuf;

/// The folder, as an argument of its own or by name.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgument {
    /// A model folder, or a run folder [default: the model that offramp carries]
    model: Option<PathBuf>,
    /// The same, by name
    #[arg(long = "model", id = "model_folder", value_name = "FOLDER", conflicts_with = "model", hide = true)]
    named: Option<PathBuf>,
}

impl ModelArgument {
    pub(crate) fn source(&self) -> Result<Source> {
        match self.model.as_ref().or(self.named.as_ref()) {
            Some(path) => Ok(Source::resolve(path)?),
            None => Ok(carried()),
        }
    }
}

/// The model that the program carries.
pub(crate) fn carried() -> Source {
    let model = TINYSTORIES_24;
    let (name, config) = (model.name, model.config);
    Source::Carried(Carried { name, config, weights: model.weights, tokenizer: model.tokenizer })
}
