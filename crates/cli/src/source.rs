//! The model that a command uses: a folder's, or the one that the program contains.

use crate::download;
use anyhow::Result;
use offramp_models::TINYSTORIES_24;
use offramp_pipeline::{Carried, ModelSource};
use std::path::{Path, PathBuf};

/// The model, as a positional argument or as an option.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgument {
    /// A model folder, a run folder, a GGUF file, or ORG/NAME on Hugging Face's hub [default: the model that
    /// comes with offramp]
    model: Option<PathBuf>,
    /// The same, as an option
    #[arg(long = "model", id = "model_folder", value_name = "FOLDER", conflicts_with = "model", hide = true)]
    named: Option<PathBuf>,
}

impl ModelArgument {
    pub(crate) fn source(&self) -> Result<ModelSource> {
        match self.model.as_ref().or(self.named.as_ref()) {
            Some(path) => resolve(path),
            None => Ok(carried()),
        }
    }
}

/// The model that a path or a name means. A download shows its progress.
pub(crate) fn resolve(path: &Path) -> Result<ModelSource> {
    let name = path.display().to_string();
    Ok(download::shown(&name, |observer| ModelSource::resolve_observed(path, observer))?)
}

/// The model that the program contains.
pub(crate) fn carried() -> ModelSource {
    let model = TINYSTORIES_24;
    let (name, config) = (model.name, model.config);
    ModelSource::Carried(Carried { name, config, weights: model.weights, tokenizer: model.tokenizer })
}
