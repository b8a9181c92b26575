//! Text in, text out: a model with its tokenizer, as its folder's own files mean them.
//!
//! A [`Source`] names a model; [`Source::open`] makes a [`Pipeline`] of it, which encodes prompts as
//! `transformers` does ([`Pipeline::encode`]), knows the ends of a text and the sampling that the folder asks for
//! ([`Sampling`]), and turns a prompt into text that arrives piece by piece ([`TextGeneration`]), without ever showing half a
//! character or a stop string.
//!
//! A [`Chat`] is a conversation, which the folder's own [`ChatTemplate`] makes a prompt of.
//!
//! Corpora are text and nothing else: who measures on them takes [`Pipeline::tokenizer`] and its plain encoding.

mod chat;
mod chat_template;
mod error;
mod generation_config;
mod pipeline;
mod sampling;
mod source;
mod stop_strings;
mod text_generation;

pub use chat::Chat;
pub use chat_template::{ChatTemplate, ChatTemplateError, Clock, Json, Message, RenderOptions};
pub use error::{Error, Result};
pub use generation_config::GenerationConfig;
pub use pipeline::Pipeline;
pub use sampling::{Asked, Sampling};
pub use source::{Carried, Source};
pub use text_generation::{Added, Finish, GeneratedText, Piece, Request, TextGeneration, Transcript};

/// How the text of a prompt becomes token ids.
pub use offramp_text::PromptOptions;
