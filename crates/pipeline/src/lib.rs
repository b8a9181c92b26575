//! Text in, text out: a model with its tokenizer, as its folder's own files mean them.

mod chat_template;

pub use chat_template::{ChatTemplate, ChatTemplateError, Clock, Json, Message, RenderOptions};
