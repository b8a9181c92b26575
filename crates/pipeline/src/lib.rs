//! Text in, text out: a model with its tokenizer, used as the files of its folder say.
//!
//! A [`ModelSource`] names a model, and [`ModelSource::open`] makes a [`Pipeline`] from it. The pipeline
//! encodes prompts as `transformers` does ([`Pipeline::encode`]). It knows the folder's end-of-text tokens
//! and its sampling options ([`Sampling`]). It generates text piece by piece ([`TextGeneration`]), and never
//! shows half a character or a stop string.
//!
//! A [`Chat`] is a conversation. The folder's own [`ChatTemplate`] turns it into a prompt.
//!
//! Corpora are plain text: code that measures on them uses [`Pipeline::tokenizer`] and its plain encoding.

mod chat;
mod chat_template;
mod drafts;
mod error;
mod export;
mod generation_config;
mod pipeline;
mod sampling;
mod source;
mod stop_strings;
mod text_generation;
mod text_scheduler;

pub use chat::Chat;
pub use chat_template::{ChatTemplate, ChatTemplateError, Json, Message, RenderOptions, TemplateClock};
pub use drafts::{DraftFormat, Drafts};
pub use error::{Error, Result};
pub use export::{export_gguf, quantize, written_type};
pub use generation_config::GenerationConfig;
pub use pipeline::Pipeline;
pub use sampling::{Sampling, UserSampling};
pub use source::{Carried, ModelSource};
pub use text_generation::{
    Added, Finish, GeneratedText, Heard, Piece, TextGeneration, TextRequest, Transcript,
};
pub use text_scheduler::{Ended, TextProgress, TextScheduler};

/// How the text of a prompt becomes token ids.
pub use offramp_text::PromptOptions;
