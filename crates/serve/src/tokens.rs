//! Text to token ids and back, in vLLM's words and in llama.cpp's.

use crate::app::{App, on_blocking_thread};
use crate::body::{self, RawBody};
use crate::chat;
use crate::error::{ApiError, ErrorBody, Result};
use crate::guard::with_ignored;
use crate::logprobs;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use offramp_pipeline::{Message, PromptOptions, RenderOptions};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// A text, or a conversation.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TokenizeRequest {
    #[serde(rename = "model")]
    model: Option<String>,
    prompt: Option<String>,
    /// llama.cpp's name for `prompt`.
    content: Option<String>,
    #[schema(value_type = Option<Vec<Object>>)]
    messages: Option<Vec<Message>>,
    /// Whether the tokenizer adds its own tokens: `true` where nothing is said.
    add_special_tokens: Option<bool>,
    /// llama.cpp's name for `add_special_tokens`.
    add_special: Option<bool>,
    return_token_strs: Option<bool>,
    /// Of a conversation: whether a new answer begins; `true` where nothing is said.
    add_generation_prompt: Option<bool>,
}

/// Token ids.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tokenized {
    count: usize,
    max_model_len: usize,
    tokens: Vec<u32>,
    token_strs: Option<Vec<String>>,
}

/// Token ids to be decoded.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct DetokenizeRequest {
    #[serde(rename = "model")]
    model: Option<String>,
    tokens: Vec<u32>,
}

/// A text, under both names.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Detokenized {
    prompt: String,
    content: String,
}

/// What is to be known of the tokenizer.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenizerInfo {
    tokenizer_class: &'static str,
    vocab_size: usize,
    model_max_length: usize,
    bos_token: Option<String>,
    eos_token: Option<String>,
    pad_token: Option<String>,
    add_bos_token: bool,
    has_chat_template: bool,
}

/// No shared fields.
#[derive(Debug, Deserialize)]
struct Nothing {}

/// Token ids of a text or a conversation.
#[utoipa::path(post, path = "/tokenize", request_body = TokenizeRequest, responses(
    (status = 200, body = Tokenized), (status = 400, body = ErrorBody)))]
pub(crate) async fn tokenize(State(app): State<Arc<App>>, raw: RawBody) -> Result<Response> {
    let read = body::read::<TokenizeRequest, Nothing>(&raw.bytes)?;
    let asked = read.own;
    app.models.resolve(asked.model.as_deref())?;
    let add_special_tokens = asked.add_special_tokens.or(asked.add_special).unwrap_or(true);
    if asked.prompt.is_some() && asked.content.is_some() {
        return Err(ApiError::invalid("content", "content is another name of prompt: give one of the two"));
    }
    let tokens = match (asked.messages, asked.prompt.or(asked.content)) {
        (Some(messages), None) => {
            let add_generation_prompt = asked.add_generation_prompt.unwrap_or(true);
            let options = RenderOptions { add_generation_prompt, ..RenderOptions::default() };
            chat::encode(&app, messages, options).await?
        }
        (None, Some(text)) => {
            let app = Arc::clone(&app);
            let options = PromptOptions { add_special_tokens, ..PromptOptions::default() };
            let encode = move || app.pipeline.tokenizer().encode_prompt(&text, options);
            on_blocking_thread(move || {
                encode().map_err(|error| ApiError::invalid("prompt", error.to_string()))
            })
            .await?
        }
        _ => return Err(ApiError::invalid("prompt", "give a prompt or messages, one of the two")),
    };
    let tokenizer = app.pipeline.tokenizer();
    let strings = asked.return_token_strs.unwrap_or(false);
    let token_strs = strings.then(|| tokens.iter().map(|&id| logprobs::name(tokenizer, id)).collect());
    let found = Tokenized { count: tokens.len(), max_model_len: app.context, tokens, token_strs };
    Ok(with_ignored(Json(found).into_response(), &read.ignored))
}

/// The text of token ids.
#[utoipa::path(post, path = "/detokenize", request_body = DetokenizeRequest, responses(
    (status = 200, body = Detokenized), (status = 400, body = ErrorBody)))]
pub(crate) async fn detokenize(State(app): State<Arc<App>>, raw: RawBody) -> Result<Response> {
    let read = body::read::<DetokenizeRequest, Nothing>(&raw.bytes)?;
    app.models.resolve(read.own.model.as_deref())?;
    let decoded = app.pipeline.tokenizer().decode(&read.own.tokens);
    let text = decoded.map_err(|error| ApiError::invalid("tokens", error.to_string()))?;
    let found = Detokenized { prompt: text.clone(), content: text };
    Ok(with_ignored(Json(found).into_response(), &read.ignored))
}

/// What is to be known of the tokenizer.
#[utoipa::path(get, path = "/tokenizer_info", responses((status = 200, body = TokenizerInfo)))]
pub(crate) async fn info(State(app): State<Arc<App>>) -> Json<TokenizerInfo> {
    let tokenizer = app.pipeline.tokenizer();
    let config = app.pipeline.model().config();
    let name = |id: Option<u32>| id.map(|id| logprobs::name(tokenizer, id));
    let empty = tokenizer.encode_prompt("a", PromptOptions::default()).unwrap_or_default();
    Json(TokenizerInfo {
        tokenizer_class: "PreTrainedTokenizerFast",
        vocab_size: tokenizer.vocab_size(),
        model_max_length: app.context,
        bos_token: name(config.bos_token_id.filter(|id| tokenizer.token_bytes(*id).is_some())),
        eos_token: name(app.pipeline.stop_tokens().first().copied()),
        pad_token: None,
        add_bos_token: config.bos_token_id.is_some_and(|bos| empty.first() == Some(&bos)),
        has_chat_template: app.chat.is_some(),
    })
}
