//! `/v1/completions`: texts that continue a prompt.

mod prompt;
mod stream;

use crate::answers::Answer;
use crate::app::App;
use crate::body::{self, Body, RawBody};
use crate::error::{ApiError, ErrorBody, Result};
use crate::fields::{Asked, MOST_LOGPROBS, SharedFields};
use crate::format::ResponseFormat;
use crate::guard::with_ignored;
use crate::logprobs::{self, CompletionLogprobs, TokenDepth};
use crate::sse;
use crate::usage::{Timings, Usage, finish};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use offramp_engine::Request;
pub(crate) use prompt::Prompt;
use prompt::PromptText;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::ToSchema;

/// What only completions have.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub(crate) struct CompletionFields {
    prompt: Prompt,
    /// At most so many new tokens; 16 where nothing is said.
    max_tokens: Option<usize>,
    /// The same.
    max_completion_tokens: Option<usize>,
    /// Texts for each prompt.
    #[schema(minimum = 1)]
    n: Option<usize>,
    /// As many as `n`.
    best_of: Option<usize>,
    /// Repeats the prompt before the new text.
    echo: Option<bool>,
    /// Log-probabilities of the tokens, and of so many of the most likely ones.
    #[schema(maximum = 20)]
    logprobs: Option<usize>,
    /// Not supported.
    suffix: Option<String>,
    /// Whether the tokenizer adds its own tokens around a text.
    add_special_tokens: Option<bool>,
    response_format: Option<ResponseFormat>,
}

/// All fields of a completion.
#[derive(Debug, ToSchema)]
#[allow(dead_code, reason = "the schema of what two structs read")]
pub(crate) struct CompletionRequest {
    #[schema(inline)]
    #[serde(flatten)]
    own: CompletionFields,
    #[schema(inline)]
    #[serde(flatten)]
    shared: SharedFields,
}

/// A reply, or a chunk of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Completion {
    id: String,
    object: &'static str,
    created: u64,
    model: String,
    system_fingerprint: String,
    choices: Vec<CompletionChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<Timings>,
}

/// One text, or a piece of one.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: Option<&'static str>,
    /// The stop string that ended the text.
    stop_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    depths: Option<Vec<TokenDepth>>,
}

/// A request whose fields are fine.
#[derive(Debug)]
struct Checked {
    asked: Asked,
    prompts: Vec<PromptText>,
    n: usize,
    echo: bool,
    logprobs: bool,
    model: String,
    stream: bool,
    include_usage: bool,
    continuous_usage: bool,
}

/// Continues a prompt.
#[utoipa::path(post, path = "/v1/completions", request_body = CompletionRequest, responses(
    (status = 200, body = Completion), (status = 400, body = ErrorBody), (status = 429, body = ErrorBody)))]
pub(crate) async fn complete(State(app): State<Arc<App>>, raw: RawBody) -> Result<Response> {
    let Body { own, shared, ignored } = body::read::<CompletionFields, SharedFields>(&raw.bytes)?;
    let (checked, requests) = check(&app, own, &shared).await?;
    drop(raw);
    let answers = app.submit(requests, &checked.asked.stop)?;
    let head = app.new_head("cmpl");
    let response = match checked.stream {
        true => sse::stream(answers, stream::CompletionChunks::new(app, head, checked)),
        false => {
            let answers = answers.collect().await?;
            Json(checked.reply(&app, head, answers)).into_response()
        }
    };
    Ok(with_ignored(response, &ignored))
}

async fn check(
    app: &Arc<App>,
    own: CompletionFields,
    shared: &SharedFields,
) -> Result<(Checked, Vec<Request>)> {
    let n = own.n.unwrap_or(1);
    if n == 0 || own.best_of.is_some_and(|best_of| best_of != n) {
        let message = "n is at least 1, and best_of the same: all texts are returned, none is chosen";
        return Err(ApiError::invalid("n", message));
    }
    if own.suffix.as_ref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(ApiError::invalid("suffix", "suffix is not supported: leave it out"));
    }
    if let Some(most) = own.logprobs.filter(|&most| most > MOST_LOGPROBS) {
        let message = format!("logprobs is {most}: give at most {MOST_LOGPROBS}");
        return Err(ApiError::invalid("logprobs", message));
    }
    let mut asked = shared.asked(app, app.pipeline.stop_tokens()).await?;
    let echo = own.echo.unwrap_or(false);
    asked.options.logprobs = own.logprobs;
    asked.options.prompt_logprobs = own.logprobs.filter(|_| echo);
    asked.options.constraint = app.constraint(own.response_format.as_ref(), &asked.options.stop_tokens)?;
    let prompts = own.prompt.encode(app, own.add_special_tokens.unwrap_or(true)).await?;
    let most = own.max_completion_tokens.or(own.max_tokens).unwrap_or(16);
    let mut requests = Vec::new();
    if prompts.len().saturating_mul(n) > app.most_places {
        let (texts, most) = (prompts.len().saturating_mul(n), app.most_places);
        let message =
            format!("the request asks for {texts} texts, and the server takes {most} at most: split it");
        return Err(ApiError::invalid(if n > 1 { "n" } else { "prompt" }, message));
    }
    for prompt in &prompts {
        for choice in 0..n {
            requests.push(asked.request(app, &prompt.ids, Some(most), choice)?);
        }
    }
    let options = shared.stream_options.unwrap_or_default();
    let checked = Checked {
        asked,
        prompts,
        n,
        echo,
        logprobs: own.logprobs.is_some(),
        model: app.models.shown(shared.model.as_deref()),
        stream: shared.stream.unwrap_or(false),
        include_usage: options.include_usage.unwrap_or(false),
        continuous_usage: options.continuous_usage_stats.unwrap_or(false),
    };
    Ok((checked, requests))
}

impl Checked {
    fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).sum()
    }

    fn reply(&self, app: &App, head: crate::app::Head, answers: Vec<Answer>) -> Completion {
        let tokens = answers.iter().map(|answer| answer.tokens.len()).sum();
        let cached = answers.iter().map(|answer| answer.ended.statistics.cached_tokens).sum();
        let timings = Timings::of_answers(&answers, self.asked.exit_layer);
        let choices = answers.into_iter().enumerate().map(|(index, answer)| self.choice(app, index, answer));
        Completion {
            choices: choices.collect(),
            usage: Some(Usage::new(self.prompt_tokens(), tokens, cached)),
            timings: Some(timings),
            ..self.chunk(app, head, Vec::new())
        }
    }

    fn choice(&self, app: &App, index: usize, answer: Answer) -> CompletionChoice {
        let tokenizer = app.pipeline.tokenizer();
        let prompt = &self.prompts[index / self.n];
        let (finish_reason, stop_reason) = finish(&answer.ended.finish);
        let logprobs = self.logprobs.then(|| {
            let (mut found, mut offset) = self.begin_logprobs(app, prompt, &answer.prompt_logprobs);
            for token in &answer.tokens {
                offset = found.push(tokenizer, token.id, token.logprobs.as_ref(), offset);
            }
            found
        });
        let echoed = if self.echo { prompt.text.as_str() } else { "" };
        CompletionChoice {
            index,
            text: format!("{echoed}{}", answer.text),
            logprobs,
            finish_reason: Some(finish_reason),
            stop_reason,
            depths: self.asked.return_depths.then(|| logprobs::depths(tokenizer, &answer.tokens)),
        }
    }

    /// The log-probabilities of an echoed prompt, and where the new text begins.
    fn begin_logprobs(
        &self,
        app: &App,
        prompt: &PromptText,
        found: &[offramp_engine::Logprobs],
    ) -> (CompletionLogprobs, usize) {
        let (mut logprobs, mut offset) = (CompletionLogprobs::default(), 0);
        if self.echo {
            for (position, &id) in prompt.ids.iter().enumerate() {
                let found = position.checked_sub(1).and_then(|before| found.get(before));
                offset = logprobs.push(app.pipeline.tokenizer(), id, found, offset);
            }
        }
        (logprobs, offset)
    }

    fn chunk(&self, app: &App, head: crate::app::Head, choices: Vec<CompletionChoice>) -> Completion {
        Completion {
            id: head.id,
            object: "text_completion",
            created: head.created,
            model: self.model.clone(),
            system_fingerprint: app.fingerprint.clone(),
            choices,
            usage: None,
            timings: None,
        }
    }
}
