//! `/v1/chat/completions`: the next message of a conversation.

mod stream;

use crate::answers::Answer;
use crate::app::{App, ChatSettings, Head, on_blocking_thread};
use crate::body::{self, Body, RawBody};
use crate::error::{ApiError, ErrorBody, Result};
use crate::fields::{Asked, MOST_LOGPROBS, SharedFields};
use crate::format::ResponseFormat;
use crate::guard::with_ignored;
use crate::logprobs::{self, ChatLogprobs, TokenDepth};
use crate::sse;
use crate::tools::{ToolCall, ToolFormat};
use crate::usage::{Timings, Usage, finish};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use offramp_engine::Request;
use offramp_pipeline::{Json as OrderedJson, Message, PromptOptions, RenderOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

/// What only chats have.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ChatFields {
    #[schema(value_type = Vec<Object>)]
    messages: Vec<Message>,
    /// At most so many new tokens; as many as the context holds where nothing is said.
    max_tokens: Option<usize>,
    /// The same.
    max_completion_tokens: Option<usize>,
    /// Answers.
    #[schema(minimum = 1)]
    n: Option<usize>,
    logprobs: Option<bool>,
    #[schema(maximum = 20)]
    top_logprobs: Option<usize>,
    response_format: Option<ResponseFormat>,
    /// Functions that the model may call, as the template renders them.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<OrderedJson>,
    /// `auto` or `none`.
    tool_choice: Option<Value>,
    /// Further variables of the template.
    #[schema(value_type = Option<Object>)]
    chat_template_kwargs: Option<std::collections::BTreeMap<String, OrderedJson>>,
    /// Begins a new answer; `true` where nothing is said.
    add_generation_prompt: Option<bool>,
    /// Goes on within the last message.
    continue_final_message: Option<bool>,
}

/// All fields of a chat.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "the schema of what two structs read")]
pub(crate) struct ChatRequest {
    #[schema(inline)]
    #[serde(flatten)]
    own: ChatFields,
    #[schema(inline)]
    #[serde(flatten)]
    shared: SharedFields,
}

/// An answer, or a chunk of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<ChatChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

/// One answer, or a piece of one.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ChatMessage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Delta>,
    logprobs: Option<ChatLogprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depths: Option<Vec<TokenDepth>>,
}

/// A whole message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatMessage {
    role: &'static str,
    content: Option<String>,
    refusal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A piece of a message.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<IndexedCall>,
}

/// A call, and its place among the calls.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct IndexedCall {
    index: usize,
    #[serde(flatten)]
    call: ToolCall,
}

/// A request whose fields are fine.
#[derive(Debug)]
struct Checked {
    asked: Asked,
    prompt_tokens: usize,
    n: usize,
    logprobs: bool,
    tools: Option<ToolFormat>,
    model: String,
    include_usage: bool,
    continuous_usage: bool,
}

/// Continues a conversation.
#[utoipa::path(post, path = "/v1/chat/completions", request_body = ChatRequest, responses(
    (status = 200, body = ChatCompletion), (status = 400, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn answer(State(app): State<Arc<App>>, raw: RawBody) -> Result<Response> {
    let Body { own, shared, ignored } = body::read::<ChatFields, SharedFields>(&raw.bytes)?;
    let streams = shared.stream.unwrap_or(false);
    let (checked, requests) = check(&app, own, &shared).await?;
    drop(raw);
    let answers = app.submit(requests, &checked.asked.stop)?;
    let head = app.new_head("chatcmpl");
    let response = match streams {
        true => sse::stream(answers, stream::ChatChunks::new(app, head, checked)),
        false => {
            let answers = answers.collect().await?;
            Json(checked.reply(&app, head, answers)).into_response()
        }
    };
    Ok(with_ignored(response, &ignored))
}

async fn check(app: &Arc<App>, own: ChatFields, shared: &SharedFields) -> Result<(Checked, Vec<Request>)> {
    let settings = settings(app)?;
    let n = own.n.unwrap_or(1);
    if n == 0 || n > app.most_places {
        return Err(ApiError::invalid("n", format!("n is {n}: give 1 to {}", app.most_places)));
    }
    if let Some(most) = own.top_logprobs.filter(|&most| most > MOST_LOGPROBS) {
        let message = format!("top_logprobs is {most}: give at most {MOST_LOGPROBS}");
        return Err(ApiError::invalid("top_logprobs", message));
    }
    let logprobs = own.logprobs.unwrap_or(false);
    if own.top_logprobs.is_some_and(|most| most > 0) && !logprobs {
        return Err(ApiError::invalid("top_logprobs", "top_logprobs needs \"logprobs\": true"));
    }
    let tools = tools(own.tools, own.tool_choice.as_ref())?;
    let mut asked = shared.asked(app, &settings.stop_tokens).await?;
    asked.options.logprobs = logprobs.then(|| own.top_logprobs.unwrap_or(0));
    asked.options.constraint = app.constraint(own.response_format.as_ref(), &asked.options.stop_tokens)?;
    let continue_final_message = own.continue_final_message.unwrap_or(false);
    let options = RenderOptions {
        add_generation_prompt: own.add_generation_prompt.unwrap_or(!continue_final_message),
        continue_final_message,
        tools: tools.clone(),
        arguments: own.chat_template_kwargs.into_iter().flatten().collect(),
        ..RenderOptions::default()
    };
    let ids = encode(app, own.messages, options).await?;
    let most = own.max_completion_tokens.or(own.max_tokens);
    let requests = (0..n).map(|choice| asked.request(app, &ids, most, choice)).collect::<Result<_>>()?;
    let options = shared.stream_options.unwrap_or_default();
    let checked = Checked {
        asked,
        prompt_tokens: ids.len(),
        n,
        logprobs,
        tools: settings.tools.filter(|_| tools.is_some()),
        model: app.models.shown(shared.model.as_deref()),
        include_usage: options.include_usage.unwrap_or(false),
        continuous_usage: options.continuous_usage_stats.unwrap_or(false),
    };
    Ok((checked, requests))
}

/// The tools that the template gets.
pub(crate) fn tools(tools: Option<OrderedJson>, choice: Option<&Value>) -> Result<Option<OrderedJson>> {
    match choice.map(|choice| choice.as_str().unwrap_or("a function")) {
        None | Some("auto") => Ok(tools.filter(|tools| !tools.is_empty())),
        Some("none") => Ok(None),
        Some(other) => {
            let message = format!("tool_choice {other:?} is not supported: say \"auto\" or \"none\"");
            Err(ApiError::invalid("tool_choice", message))
        }
    }
}

/// How this model chats.
///
/// # Errors
/// If it has no chat template.
pub(crate) fn settings(app: &App) -> Result<&ChatSettings> {
    app.chat.as_ref().ok_or_else(|| {
        let message = format!(
            "{} has no chat template, so that it was not trained to chat: continue a text with /v1/completions",
            app.models.id
        );
        ApiError::malformed(message).with_code("no_chat_template")
    })
}

/// The prompt of a conversation.
pub(crate) async fn encode(
    app: &Arc<App>,
    messages: Vec<Message>,
    options: RenderOptions,
) -> Result<Vec<u32>> {
    let template = Arc::clone(&settings(app)?.template);
    let app = Arc::clone(app);
    on_blocking_thread(move || {
        let messages =
            messages.into_iter().map(Message::normalized).collect::<std::result::Result<Vec<_>, _>>();
        let messages =
            messages.map_err(|error| ApiError::invalid("messages", format!("messages: {error}")))?;
        let prompt = template.render(&messages, &options);
        let prompt = prompt.map_err(|error| ApiError::invalid("messages", error.to_string()))?;
        Ok(app.pipeline.encode(&prompt, PromptOptions::rendered())?)
    })
    .await
}

impl Checked {
    fn reply(&self, app: &App, head: Head, answers: Vec<Answer>) -> ChatCompletion {
        let tokens = answers.iter().map(|answer| answer.tokens.len()).sum();
        let cached = answers.iter().map(|answer| answer.ended.statistics.cached_tokens).max().unwrap_or(0);
        let timings = Timings::of_answers(&answers, self.asked.exit_layer);
        let choices = answers.into_iter().enumerate().map(|(index, answer)| self.choice(app, index, answer));
        ChatCompletion {
            choices: choices.collect(),
            usage: Some(Usage::new(self.prompt_tokens, tokens, cached)),
            timings: Some(timings),
            ..self.completion(app, head, "chat.completion")
        }
    }

    fn choice(&self, app: &App, index: usize, answer: Answer) -> ChatChoice {
        let tokenizer = app.pipeline.tokenizer();
        let (reason, stop_reason) = finish(&answer.ended.finish);
        let (content, tool_calls) = match self.tools {
            Some(format) => format.read(&answer.text),
            None => (answer.text, Vec::new()),
        };
        let called = !tool_calls.is_empty();
        let content = (!content.is_empty() || !called).then_some(content);
        ChatChoice {
            index,
            message: Some(ChatMessage { role: "assistant", content, refusal: None, tool_calls }),
            delta: None,
            logprobs: self.logprobs.then(|| ChatLogprobs::of(tokenizer, &answer.tokens)),
            finish_reason: Some(if called { "tool_calls" } else { reason }),
            stop_reason,
            depths: self.asked.return_depths.then(|| logprobs::depths(tokenizer, &answer.tokens)),
        }
    }

    fn completion(&self, app: &App, head: Head, object: &'static str) -> ChatCompletion {
        ChatCompletion {
            id: head.id,
            object,
            created: head.created,
            model: self.model.clone(),
            system_fingerprint: app.fingerprint.clone(),
            choices: Vec::new(),
            usage: None,
            timings: None,
        }
    }
}
