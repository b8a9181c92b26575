//! Everything that can go wrong between a text and a model.

use crate::ChatTemplateError;
use std::io;
use std::path::PathBuf;

/// What this room answers to what it cannot do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model refused.
    #[error(transparent)]
    Model(#[from] offramp_model::Error),
    /// The session refused.
    #[error(transparent)]
    Engine(#[from] offramp_engine::Error),
    /// The tokenizer refused.
    #[error(transparent)]
    Text(#[from] offramp_text::Error),
    /// A file that could not be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A `generation_config.json` that means nothing.
    #[error(
        "{path}: {key} is {found}, expected {expected}: correct the file, or remove it to do without its defaults",
        path = path.display()
    )]
    GenerationConfig {
        /// The file.
        path: PathBuf,
        /// The key, or what stands for the whole file.
        key: String,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: &'static str,
    },
    /// An empty prompt, and no token that a text begins with.
    #[error(
        "the prompt is empty, and neither the tokenizer nor config.json names a token that a text begins with: \
         give a prompt"
    )]
    EmptyPrompt,
    /// The chat template refused, or is none.
    #[error(transparent)]
    ChatTemplate(#[from] ChatTemplateError),
    /// A model that has no chat template.
    #[error(
        "{name} has no chat template (chat_template.jinja, or \"chat_template\" in tokenizer_config.json), so that it \
         was not trained to chat: continue a text with offramp generate, or put the template that it was trained with \
         into chat_template.jinja beside its config.json",
        name = name.display()
    )]
    NoChatTemplate {
        /// The folder, or the name of what is carried.
        name: PathBuf,
    },
    /// A conversation that leaves no room for an answer.
    #[error(
        "the conversation has {tokens} tokens, and the model's context holds {context}: begin a new one (/reset in \
         offramp chat), or say less"
    )]
    ConversationFull {
        /// Tokens that it has, with what begins the answer.
        tokens: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// A stop string that every text holds.
    #[error("a stop string is empty: every text would stop before it begins")]
    EmptyStopString,
}

/// What this room's functions return.
pub type Result<T> = std::result::Result<T, Error>;
