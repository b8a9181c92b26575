//! The model that a command works on: a folder's, or the one that the program carries.

use anyhow::Result;
use offramp_model::{Config, Formats, Llama, Weights, checkpoint};
use offramp_models::TINYSTORIES_24 as BUNDLED;
use offramp_text::Tokenizer;
use std::path::{Path, PathBuf};

/// The folder, as an argument of its own or by name.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ModelArgument {
    /// A model folder, or a run folder [default: the model that offramp carries]
    model: Option<PathBuf>,
    /// The same, by name
    #[arg(long = "model", id = "model_folder", value_name = "FOLDER", conflicts_with = "model", hide = true)]
    named: Option<PathBuf>,
}

/// Where a model comes from.
#[derive(Debug)]
pub(crate) enum Source {
    Folder(PathBuf),
    Bundled,
}

impl ModelArgument {
    pub(crate) fn source(&self) -> Result<Source> {
        match self.model.as_ref().or(self.named.as_ref()) {
            Some(path) => Ok(Source::Folder(checkpoint::resolve(path)?)),
            None => Ok(Source::Bundled),
        }
    }
}

impl Source {
    /// The folder, or the name of what is carried.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Bundled => Path::new(BUNDLED.name),
        }
    }

    pub(crate) fn config(&self) -> Result<Config> {
        Ok(match self {
            Self::Folder(folder) => Config::read(&folder.join("config.json"))?,
            Self::Bundled => Config::from_json(BUNDLED.config, self.path())?,
        })
    }

    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        Ok(match self {
            Self::Folder(folder) => Tokenizer::from_folder(folder)?,
            Self::Bundled => Tokenizer::from_json(BUNDLED.tokenizer.as_bytes(), self.path())?,
        })
    }

    pub(crate) fn has_tokenizer(&self) -> bool {
        match self {
            Self::Folder(folder) => folder.join("tokenizer.json").exists(),
            Self::Bundled => true,
        }
    }

    /// Checked, and not read.
    pub(crate) fn weights(&self, config: &Config) -> Result<Weights> {
        Ok(match self {
            Self::Folder(folder) => Weights::open(folder, config)?,
            Self::Bundled => Weights::from_bytes(BUNDLED.weights, self.path(), config)?,
        })
    }

    pub(crate) fn load(&self, formats: &Formats) -> offramp_model::Result<Llama> {
        match self {
            Self::Folder(folder) => Llama::load(folder, formats),
            Self::Bundled => Llama::from_bytes((BUNDLED.config, BUNDLED.weights), self.path(), formats),
        }
    }

    /// Both at once: reading a large vocabulary takes as long as mapping the weights.
    pub(crate) fn open(&self, formats: &Formats) -> Result<(Llama, Tokenizer)> {
        let (tokenizer, model) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| self.tokenizer());
            (tokenizer.join(), self.load(formats))
        });
        let tokenizer = tokenizer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok((model?, tokenizer))
    }
}
