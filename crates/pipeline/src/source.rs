//! Opens a model with its tokenizer: from a folder, or from files that a program contains.

use crate::{ChatTemplate, Error, GenerationConfig, Pipeline, Result};
use offramp_model::{Config, Formats, Llama, Weights, checkpoint};
use offramp_text::Tokenizer;
use std::path::{Path, PathBuf};

/// The files of a model that a program contains.
#[derive(Clone, Copy, Debug)]
pub struct Carried {
    /// Its name.
    pub name: &'static str,
    /// The text of its `config.json`.
    pub config: &'static str,
    /// The bytes of its `model.safetensors`.
    pub weights: &'static [u8],
    /// The text of its `tokenizer.json`.
    pub tokenizer: &'static str,
}

/// The place of a model.
#[derive(Clone, Debug)]
pub enum ModelSource {
    /// A Hugging Face folder.
    Folder(PathBuf),
    /// Files in memory.
    Carried(Carried),
}

impl ModelSource {
    /// The model folder that `path` means: the folder itself, or the model of a run folder.
    ///
    /// # Errors
    /// If there is no model.
    pub fn resolve(path: &Path) -> Result<Self> {
        Ok(Self::Folder(checkpoint::resolve(path)?))
    }

    /// The folder, or the name of the contained model.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder,
            Self::Carried(carried) => Path::new(carried.name),
        }
    }

    /// Its `config.json`.
    ///
    /// # Errors
    /// If it cannot be read or does not describe a model.
    pub fn config(&self) -> Result<Config> {
        Ok(match self {
            Self::Folder(folder) => Config::read(&folder.join("config.json"))?,
            Self::Carried(carried) => Config::from_json(carried.config, self.path())?,
        })
    }

    /// Its `generation_config.json`; without one, an empty one.
    ///
    /// # Errors
    /// If the file exists and is invalid.
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        match self {
            Self::Folder(folder) => GenerationConfig::from_folder(folder),
            Self::Carried(_) => Ok(GenerationConfig::default()),
        }
    }

    /// Its tokenizer. A token that ends the model's texts separates the stories of a corpus.
    ///
    /// # Errors
    /// If its files cannot be read.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let mut tokenizer = match self {
            Self::Folder(folder) => Tokenizer::from_folder(folder)?,
            Self::Carried(carried) => Tokenizer::from_json(carried.tokenizer.as_bytes(), self.path())?,
        };
        let ends = ends_of_text(&self.config()?, &self.generation_config()?);
        let named = tokenizer.end_of_text().filter(|id| ends.contains(id));
        let known = ends.into_iter().find(|&id| tokenizer.token_bytes(id).is_some());
        if let Some(id) = named.or(known) {
            tokenizer.set_end_of_text(id)?;
        }
        Ok(tokenizer)
    }

    /// Its chat template. It is read only for a chat, because nothing else needs it.
    ///
    /// # Errors
    /// If there is none, or it cannot be read or does not compile.
    pub fn chat_template(&self) -> Result<ChatTemplate> {
        let (template, advice) = match self {
            Self::Folder(folder) => (
                ChatTemplate::from_folder(folder)?,
                "put the template that it was trained with into chat_template.jinja beside its config.json",
            ),
            Self::Carried(_) => (None, "name the folder of a model that was"),
        };
        template.ok_or_else(|| Error::NoChatTemplate { name: self.path().to_owned(), advice })
    }

    /// Whether it has a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        match self {
            Self::Folder(folder) => folder.join("tokenizer.json").exists(),
            Self::Carried(_) => true,
        }
    }

    /// Its weights, checked and not read.
    ///
    /// # Errors
    /// If a file is missing, damaged, or not of this config.
    pub fn weights(&self, config: &Config) -> Result<Weights> {
        Ok(match self {
            Self::Folder(folder) => Weights::open(folder, config)?,
            Self::Carried(carried) => Weights::from_bytes(carried.weights, self.path(), config)?,
        })
    }

    /// The model alone.
    ///
    /// # Errors
    /// If it cannot be read, or not be had in these formats.
    pub fn load(&self, formats: &Formats) -> Result<Llama> {
        Ok(match self {
            Self::Folder(folder) => Llama::load(folder, formats)?,
            Self::Carried(carried) => {
                Llama::from_bytes(carried.config, carried.weights, self.path(), formats)?
            }
        })
    }

    /// The model with its tokenizer.
    ///
    /// # Errors
    /// If either cannot be read.
    pub fn open(&self, formats: &Formats) -> Result<Pipeline> {
        // Both at once: reading a large vocabulary takes as long as mapping the weights.
        let (tokenizer, model) = std::thread::scope(|scope| {
            let tokenizer = scope.spawn(|| self.tokenizer());
            (tokenizer.join(), self.load(formats))
        });
        let tokenizer = tokenizer.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(Pipeline::new(model?, tokenizer, self.generation_config()?))
    }
}

/// The tokens that end a text: those of both files.
pub(crate) fn ends_of_text(config: &Config, generation: &GenerationConfig) -> Vec<u32> {
    let mut ends = config.eos_token_ids.clone();
    ends.extend(generation.eos_token_ids.iter().filter(|id| !config.eos_token_ids.contains(id)));
    ends
}
