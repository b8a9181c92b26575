//! Opens a model with its tokenizer: from a folder, or from files that a program contains.

use crate::{ChatTemplate, Error, GenerationConfig, Pipeline, Result};
use offramp_gguf::Value;
use offramp_hub::Observer;
use offramp_model::{Config, Formats, Gguf, Llama, Weights, checkpoint, hub};
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
    /// A GGUF file; of a split one, the first part.
    Gguf(PathBuf),
    /// Files in memory.
    Carried(Carried),
}

impl ModelSource {
    /// The model that `path` means: a GGUF file, a folder, the model of a run folder, or a name on the hub.
    ///
    /// # Errors
    /// If there is no model.
    pub fn resolve(path: &Path) -> Result<Self> {
        Self::resolve_observed(path, &|_| ())
    }

    /// The same. `observer` hears of a download.
    ///
    /// # Errors
    /// If there is no model.
    pub fn resolve_observed(path: &Path, observer: Observer<'_>) -> Result<Self> {
        let found = checkpoint::resolve_observed(path, observer)?;
        Ok(if Gguf::is_one(&found) { Self::Gguf(found) } else { Self::Folder(found) })
    }

    /// The folder, or the name of the contained model.
    pub fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Gguf(path) => path,
            Self::Carried(carried) => Path::new(carried.name),
        }
    }

    /// What it is called: its name on the hub if it lies in the hub's cache, else that of its folder or file.
    pub fn name(&self) -> String {
        if let Some(id) = hub::of_path(self.path()) {
            return id.repository();
        }
        let whole = std::fs::canonicalize(self.path()).unwrap_or_else(|_| self.path().to_owned());
        whole.file_name().map_or_else(|| "model".to_owned(), |name| name.to_string_lossy().into_owned())
    }

    /// Its `config.json`.
    ///
    /// # Errors
    /// If it cannot be read or does not describe a model.
    pub fn config(&self) -> Result<Config> {
        Ok(match self {
            Self::Folder(folder) => Config::read(&folder.join("config.json"))?,
            Self::Gguf(path) => Gguf::open(path)?.config()?,
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
            Self::Gguf(_) | Self::Carried(_) => Ok(GenerationConfig::default()),
        }
    }

    /// Its tokenizer. A token that ends the model's texts separates the stories of a corpus.
    ///
    /// # Errors
    /// If its files cannot be read.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        let mut tokenizer = match self {
            Self::Folder(folder) => Tokenizer::from_folder(folder)?,
            Self::Gguf(path) => Tokenizer::from_gguf(Gguf::open(path)?.header(), path)?,
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
        let advice = match self {
            Self::Folder(_) => {
                "put the template that it was trained with into chat_template.jinja beside its config.json"
            }
            Self::Gguf(_) | Self::Carried(_) => "name the folder of a model that was",
        };
        let template = self.own_chat_template()?;
        template.ok_or_else(|| Error::NoChatTemplate { name: self.path().to_owned(), advice })
    }

    /// Its chat template, if it has one.
    ///
    /// # Errors
    /// If it cannot be read or does not compile.
    pub fn own_chat_template(&self) -> Result<Option<ChatTemplate>> {
        match self {
            Self::Folder(folder) => Ok(ChatTemplate::from_folder(folder)?),
            Self::Gguf(path) => {
                let gguf = Gguf::open(path)?;
                let source = gguf.header().get("tokenizer.chat_template").and_then(Value::as_str);
                let Some(source) = source else { return Ok(None) };
                let mut template = ChatTemplate::from_source(&path.display().to_string(), source)?;
                let pieces = gguf.header().get("tokenizer.ggml.tokens").and_then(Value::as_texts);
                for name in ["bos", "eos", "pad", "unknown"] {
                    let id =
                        gguf.header().get(&format!("tokenizer.ggml.{name}_token_id")).and_then(Value::as_u64);
                    let piece = id.zip(pieces).and_then(|(id, pieces)| pieces.get(id as usize));
                    if let Some(piece) = piece {
                        let name = if name == "unknown" { "unk" } else { name };
                        template = template.with_special_token(&format!("{name}_token"), piece);
                    }
                }
                Ok(Some(template))
            }
            Self::Carried(_) => Ok(None),
        }
    }

    /// Whether it has a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        match self {
            Self::Folder(folder) => folder.join("tokenizer.json").exists(),
            Self::Gguf(_) | Self::Carried(_) => true,
        }
    }

    /// Its weights, checked and not read.
    ///
    /// # Errors
    /// If a file is missing, damaged, or not of this config.
    pub fn weights(&self, config: &Config) -> Result<Weights> {
        Ok(match self {
            Self::Folder(folder) => Weights::open(folder, config)?,
            Self::Gguf(path) => Weights::of_gguf(Gguf::open(path)?, config)?,
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
            Self::Gguf(path) => Llama::from_gguf(path, formats)?,
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
