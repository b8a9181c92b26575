//! `/v1/responses`, stateless: an answer to an input, in the form of OpenAI's newer interface.

mod stream;

use crate::answers::Answer;
use crate::app::{App, Head};
use crate::body::{self, Body, RawBody};
use crate::chat;
use crate::error::{ApiError, ErrorBody, Result};
use crate::fields::{Asked, SharedFields};
use crate::format::ResponseFormat;
use crate::guard::with_ignored;
use crate::logprobs::{self, TokenDepth};
use crate::sse;
use crate::tools::{ToolCall, ToolFormat};
use crate::usage::{Timings, finish};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response as HttpResponse};
use offramp_engine::Request;
use offramp_pipeline::{Json as OrderedJson, Message, RenderOptions};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

/// What only responses have.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ResponseFields {
    /// A text, or the items of a conversation.
    #[schema(value_type = Value)]
    input: Value,
    /// The system message, before the input.
    instructions: Option<String>,
    /// At most so many new tokens.
    max_output_tokens: Option<usize>,
    /// The form of the text.
    text: Option<TextFormat>,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    /// Not supported: this server keeps nothing.
    previous_response_id: Option<String>,
    /// The same.
    conversation: Option<Value>,
    /// The same: only `false` is.
    store: Option<bool>,
    /// Not supported.
    background: Option<bool>,
    /// Repeated in the reply.
    metadata: Option<BTreeMap<String, String>>,
}

/// All fields of a response's request.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "the schema of what two structs read")]
pub(crate) struct ResponseRequest {
    #[schema(inline)]
    #[serde(flatten)]
    own: ResponseFields,
    #[schema(inline)]
    #[serde(flatten)]
    shared: SharedFields,
}

/// The form of a text.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct TextFormat {
    format: Option<ResponseFormat>,
}

/// A response.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ResponseObject {
    id: String,
    object: &'static str,
    created_at: u64,
    /// `in_progress`, `completed` or `incomplete`.
    status: &'static str,
    error: Option<Value>,
    incomplete_details: Option<Value>,
    instructions: Option<String>,
    max_output_tokens: Option<usize>,
    model: String,
    output: Vec<Item>,
    parallel_tool_calls: bool,
    previous_response_id: Option<String>,
    store: bool,
    temperature: f32,
    text: Value,
    tool_choice: &'static str,
    tools: Vec<Value>,
    top_p: f32,
    truncation: &'static str,
    usage: Option<ResponseUsage>,
    metadata: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depths: Option<Vec<TokenDepth>>,
}

/// A part of the output.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    /// A message.
    Message { id: String, role: &'static str, status: &'static str, content: Vec<Part> },
    /// A call of a function.
    FunctionCall { id: String, call_id: String, name: String, arguments: String, status: &'static str },
}

/// A part of a message.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Part {
    /// Text.
    OutputText { text: String, annotations: Vec<Value>, logprobs: Vec<Value> },
}

/// Tokens of a response.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct ResponseUsage {
    input_tokens: usize,
    input_tokens_details: InputDetails,
    output_tokens: usize,
    output_tokens_details: OutputDetails,
    total_tokens: usize,
}

/// What of the input was there already.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct InputDetails {
    cached_tokens: usize,
}

/// What of the output was reasoning; none is told apart.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub(crate) struct OutputDetails {
    reasoning_tokens: usize,
}

/// A request whose fields are fine.
#[derive(Debug)]
struct Checked {
    asked: Asked,
    prompt_tokens: usize,
    tools: Option<ToolFormat>,
    /// The reply without its output.
    empty: ResponseObject,
}

/// Answers an input.
#[utoipa::path(post, path = "/v1/responses", request_body = ResponseRequest, responses(
    (status = 200, body = ResponseObject), (status = 400, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn respond(State(app): State<Arc<App>>, raw: RawBody) -> Result<HttpResponse> {
    let Body { own, shared, ignored } = body::read::<ResponseFields, SharedFields>(&raw.bytes)?;
    let streams = shared.stream.unwrap_or(false);
    let (checked, request) = check(&app, own, &shared).await?;
    drop(raw);
    let answers = app.submit(vec![request], &checked.asked.stop)?;
    let response = match streams {
        true => sse::stream(answers, stream::ResponseChunks::new(app, checked)),
        false => {
            let answers = answers.collect().await?;
            let whole = answers.into_iter().next().map(|answer| checked.reply(&app, answer));
            Json(whole).into_response()
        }
    };
    Ok(with_ignored(response, &ignored))
}

async fn check(app: &Arc<App>, own: ResponseFields, shared: &SharedFields) -> Result<(Checked, Request)> {
    let settings = chat::settings(app)?;
    let keeps_nothing = |param, what: &str| {
        Err(ApiError::invalid(
            param,
            format!("{what} is not supported: this server keeps nothing, send the whole input"),
        ))
    };
    if own.previous_response_id.is_some() {
        return keeps_nothing("previous_response_id", "previous_response_id");
    }
    if own.conversation.is_some() {
        return keeps_nothing("conversation", "conversation");
    }
    if own.store == Some(true) {
        return keeps_nothing("store", "\"store\": true");
    }
    if own.background == Some(true) {
        return keeps_nothing("background", "\"background\": true");
    }
    let mut asked = shared.asked(app, &settings.stop_tokens).await?;
    let format = own.text.as_ref().and_then(|text| text.format.as_ref());
    asked.options.constraint = app.constraint(format, &asked.options.stop_tokens)?;
    let messages = messages(own.instructions.as_deref(), &own.input)?;
    let listed = own.tools.clone().unwrap_or_default();
    let tools = chat::tools(functions(&listed)?, own.tool_choice.as_ref())?;
    let options =
        RenderOptions { add_generation_prompt: true, tools: tools.clone(), ..RenderOptions::default() };
    let ids = chat::encode(app, messages, options).await?;
    let request = asked.request(app, &ids, own.max_output_tokens, 0)?;
    let Head { id, created } = app.new_head("resp");
    let sampling = asked.options.sampling;
    let empty = ResponseObject {
        id,
        object: "response",
        created_at: created,
        status: "in_progress",
        error: None,
        incomplete_details: None,
        instructions: own.instructions,
        max_output_tokens: own.max_output_tokens,
        model: app.models.shown(shared.model.as_deref()),
        output: Vec::new(),
        parallel_tool_calls: true,
        previous_response_id: None,
        store: false,
        temperature: sampling.temperature,
        text: json!({ "format": { "type": "text" } }),
        tool_choice: if tools.is_some() { "auto" } else { "none" },
        tools: listed,
        top_p: sampling.top_p,
        truncation: "disabled",
        usage: None,
        metadata: own.metadata.unwrap_or_default(),
        timings: None,
        depths: None,
    };
    let tools = settings.tools.filter(|_| tools.is_some());
    Ok((Checked { asked, prompt_tokens: ids.len(), tools, empty }, request))
}

/// The conversation of an input.
fn messages(instructions: Option<&str>, input: &Value) -> Result<Vec<Message>> {
    let wrong = |message: String| ApiError::invalid("input", message);
    let mut messages: Vec<Value> =
        instructions.iter().map(|text| json!({ "role": "system", "content": text })).collect();
    match input {
        Value::String(text) => messages.push(json!({ "role": "user", "content": text })),
        Value::Array(items) => {
            for item in items {
                let kind = item.get("type").and_then(Value::as_str).unwrap_or("message");
                messages.push(match kind {
                    "message" => json!({ "role": item.get("role"), "content": item.get("content") }),
                    "function_call" => json!({ "role": "assistant", "content": "", "tool_calls": [{
                        "id": item.get("call_id"), "type": "function",
                        "function": { "name": item.get("name"), "arguments": item.get("arguments") } }] }),
                    "function_call_output" => json!({ "role": "tool", "content": item.get("output"),
                        "tool_call_id": item.get("call_id") }),
                    other => return Err(wrong(format!("an input item of type {other:?} is not supported"))),
                });
            }
        }
        _ => return Err(wrong("input is neither a text nor a list of items".to_owned())),
    }
    messages
        .into_iter()
        .map(|message| serde_json::from_value(message).map_err(|error| wrong(error.to_string())))
        .collect()
}

/// Tools in the form of chats, which templates expect.
fn functions(tools: &[Value]) -> Result<Option<OrderedJson>> {
    if tools.is_empty() {
        return Ok(None);
    }
    let wrong = |message: String| ApiError::invalid("tools", message);
    let function = |tool: &Value| match tool.get("type").and_then(Value::as_str) {
        Some("function") => {
            let mut inner = tool.as_object().cloned().unwrap_or_default();
            inner.retain(|key, _| key != "type" && key != "strict");
            Ok(json!({ "type": "function", "function": inner }))
        }
        other => Err(wrong(format!("a tool of type {other:?} is not supported: only functions are"))),
    };
    let functions = tools.iter().map(function).collect::<Result<Vec<_>>>()?;
    let text = Value::from(functions).to_string();
    OrderedJson::parse(&text).map(Some).map_err(|error| wrong(error.to_string()))
}

fn message(id: &str, status: &'static str, text: Option<String>) -> Item {
    let part = |text| Part::OutputText { text, annotations: Vec::new(), logprobs: Vec::new() };
    let content = text.into_iter().map(part).collect();
    Item::Message { id: format!("msg_{id}"), role: "assistant", status, content }
}

fn function_call(call: ToolCall) -> Item {
    let (id, function) = (call.id, call.function);
    Item::FunctionCall {
        id: format!("fc_{id}"),
        call_id: id,
        name: function.name,
        arguments: function.arguments,
        status: "completed",
    }
}

impl Checked {
    fn reply(&self, app: &App, answer: Answer) -> ResponseObject {
        let tokenizer = app.pipeline.tokenizer();
        let (content, calls) = match self.tools {
            Some(format) => format.read(&answer.text),
            None => (answer.text.clone(), Vec::new()),
        };
        let mut reply = self.empty.clone();
        let complete = finish(&answer.ended.finish).0 == "stop";
        reply.status = if complete { "completed" } else { "incomplete" };
        reply.incomplete_details = (!complete).then(|| json!({ "reason": "max_output_tokens" }));
        if !content.is_empty() || calls.is_empty() {
            let status = reply.status;
            reply.output.push(message(&self.empty.id, status, Some(content)));
        }
        reply.output.extend(calls.into_iter().map(function_call));
        let (output_tokens, cached_tokens) = (answer.tokens.len(), answer.ended.statistics.cached_tokens);
        reply.usage = Some(ResponseUsage {
            input_tokens: self.prompt_tokens,
            input_tokens_details: InputDetails { cached_tokens },
            output_tokens,
            output_tokens_details: OutputDetails { reasoning_tokens: 0 },
            total_tokens: self.prompt_tokens + output_tokens,
        });
        reply.depths = self.asked.return_depths.then(|| logprobs::depths(tokenizer, &answer.tokens));
        reply.timings = Some(Timings::of_answers(&[answer], self.asked.exit_layer));
        reply
    }
}
