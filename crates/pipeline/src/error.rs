//! The errors between a text and a model.

use crate::ChatTemplateError;
use std::io;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] offramp_model::Error),
    /// An error of the session.
    #[error(transparent)]
    Engine(#[from] offramp_engine::Error),
    /// An error of the tokenizer.
    #[error(transparent)]
    Text(#[from] offramp_text::Error),
    /// A file that could not be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A `generation_config.json` with an invalid value.
    #[error(
        "{path}: {key} is {found}, expected {expected}: correct the file, or remove it to do without its defaults",
        path = path.display()
    )]
    GenerationConfig {
        /// The file.
        path: PathBuf,
        /// The key, or a word for the whole file.
        key: String,
        /// The value.
        found: String,
        /// The valid values.
        expected: &'static str,
    },
    /// An empty prompt, and no token that begins a text.
    #[error(
        "the prompt is empty, and neither the tokenizer nor config.json names a token that a text begins with: \
         give a prompt"
    )]
    EmptyPrompt,
    /// An error of the chat template.
    #[error(transparent)]
    ChatTemplate(#[from] ChatTemplateError),
    /// A model that has no chat template.
    #[error(
        "{name} has no chat template (chat_template.jinja, or \"chat_template\" in tokenizer_config.json), so that it \
         was not trained to chat: continue a text with offramp generate, or {advice}",
        name = name.display()
    )]
    NoChatTemplate {
        /// The folder, or the name of the model that comes with the program.
        name: PathBuf,
        /// How to chat nevertheless.
        advice: &'static str,
    },
    /// A conversation so long that no answer fits into the context.
    #[error(
        "the conversation has {tokens} tokens, and the model's context holds {context}: begin a new one (/reset in \
         offramp chat), or say less"
    )]
    ConversationFull {
        /// Its tokens, with the beginning of the answer.
        tokens: usize,
        /// The tokens of the context.
        context: usize,
    },
    /// An empty stop string.
    #[error("a stop string is empty: every text would stop before it begins")]
    EmptyStopString,
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
