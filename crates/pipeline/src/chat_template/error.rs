//! The errors of chat templates. Each is one line that says what to do.

use std::io;
use std::path::PathBuf;

/// The result of the functions of chat templates.
pub(crate) type Result<T> = std::result::Result<T, ChatTemplateError>;

/// A fault in a folder's template, or in the conversation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatTemplateError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}: check that it exists and may be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file that is larger than any real one.
    #[error("{file}: larger than {limit} bytes: a chat template is not that long; check the file")]
    TooLarge {
        /// The file.
        file: String,
        /// The most bytes that are read.
        limit: u64,
    },
    /// A file that is not JSON, or a key with a value of the wrong type.
    #[error("{path}: {reason}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// Several templates, and none called `default`.
    #[error(
        "{place}: its chat templates are {names}, and none is called \"default\": copy the one you mean to \
         chat_template.jinja in that folder"
    )]
    NoDefault {
        /// The folder.
        place: String,
        /// The names of the templates.
        names: String,
    },
    /// The template does not compile.
    #[error("{origin}, line {line}: {reason}: correct the template; it must be one that jinja2 takes")]
    Syntax {
        /// The template's file.
        origin: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template called `raise_exception`: it refuses this conversation.
    #[error("{origin}: the model's chat template refuses this conversation: {message}")]
    Refused {
        /// The template's file.
        origin: String,
        /// The template's message, in one line.
        message: String,
    },
    /// Rendering failed.
    #[error("{origin}, line {line}: {reason}: the template does not fit this conversation")]
    Render {
        /// The template's file.
        origin: String,
        /// Counted from 1; 0 if unknown.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template took more steps than any conversation needs.
    #[error(
        "{origin}: the template ran for {steps} steps without an end: shorten the conversation, or correct the \
         template"
    )]
    TooMuchWork {
        /// The template's file.
        origin: String,
        /// The limit of steps.
        steps: u64,
    },
    /// The template did not finish in time.
    #[error("the model's chat template gave no text within {seconds} seconds: correct the template")]
    TooLong {
        /// The time limit.
        seconds: u64,
    },
    /// A conversation without messages.
    #[error("a conversation has no message: give at least one")]
    NoMessage,
    /// A message or an argument that templates do not accept.
    #[error("{0}")]
    Input(String),
    /// The last message cannot be continued.
    #[error("cannot continue the last message: {0}")]
    Continue(String),
    /// No thread could be started for rendering.
    #[error("cannot start a thread to render the chat template: {0}: free some memory")]
    Thread(io::Error),
}
