//! Everything that can go wrong with a chat template, each in one line that says what to do about it.

use std::io;
use std::path::PathBuf;

/// What the functions of a chat template return.
pub(crate) type Result<T> = std::result::Result<T, ChatTemplateError>;

/// A fault in a folder's template, or in the conversation that it was given.
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
    /// A file is larger than any that is known.
    #[error("{file}: larger than {limit} bytes: a chat template is not that long; check the file")]
    TooLarge {
        /// The file.
        file: String,
        /// Bytes that are read at most.
        limit: u64,
    },
    /// A file is not JSON, or a key holds something else than it should.
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
        /// The names that there are.
        names: String,
    },
    /// The template does not compile.
    #[error("{origin}, line {line}: {reason}: correct the template; it must be one that jinja2 takes")]
    Syntax {
        /// The file that it stands in.
        origin: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template called `raise_exception`: it does not take such a conversation.
    #[error("{origin}: the model's chat template refuses this conversation: {message}")]
    Refused {
        /// The file that it stands in.
        origin: String,
        /// The template's words, in one line.
        message: String,
    },
    /// Rendering failed.
    #[error("{origin}, line {line}: {reason}: the template does not fit this conversation")]
    Render {
        /// The file that it stands in.
        origin: String,
        /// Counted from 1; 0 where it is not known.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The template does more work than any conversation needs.
    #[error(
        "{origin}: the template ran for {steps} steps without an end: shorten the conversation, or correct the \
         template"
    )]
    TooMuchWork {
        /// The file that it stands in.
        origin: String,
        /// Steps that it was given.
        steps: u64,
    },
    /// The template was waited for in vain.
    #[error("the model's chat template gave no text within {seconds} seconds: correct the template")]
    TooLong {
        /// How long it was waited for.
        seconds: u64,
    },
    /// There is nothing to render.
    #[error("a conversation has no message: give at least one")]
    NoMessage,
    /// A message or an argument that no template can be given.
    #[error("{0}")]
    Input(String),
    /// `continue_final_message` cannot be done.
    #[error("cannot continue the last message: {0}")]
    Continue(String),
    /// No thread could be started to render in.
    #[error("cannot start a thread to render the chat template: {0}: free some memory")]
    Thread(io::Error),
}
