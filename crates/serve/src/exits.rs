//! `/v1/exits`: what every exit would have said, position by position.

use crate::app::App;
use crate::body::{self, RawBody};
use crate::completions::Prompt;
use crate::error::{ApiError, ErrorBody, Result};
use crate::fields::MOST_LOGPROBS;
use crate::guard::with_ignored;
use crate::logprobs::{finite, name};
use crate::worker::Command;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use offramp_engine::{ExitReader, ExitReading, Logprobs};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::mpsc::unbounded_channel;
use utoipa::ToSchema;

/// Enough for a page, and a short wait for others.
const MOST_POSITIONS: usize = 256;

/// A text to be read.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct ExitsRequest {
    model: Option<String>,
    /// A text or its token ids, one only.
    prompt: Prompt,
    /// Exits to ask; all where nothing is said.
    exits: Option<Vec<usize>>,
    /// The most likely tokens at each exit; 5 where nothing is said.
    #[schema(minimum = 1, maximum = 20)]
    top_k: Option<usize>,
    /// The first position that is returned.
    from: Option<usize>,
}

/// What the exits say.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Exits {
    object: &'static str,
    model: String,
    exit_layers: Vec<usize>,
    positions: Vec<ExitPosition>,
}

/// One position, predicted from the tokens before it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExitPosition {
    position: usize,
    /// The token that stands there; null after the last.
    token_id: Option<u32>,
    token: Option<String>,
    /// The first exit from which on every exit's first choice is that of the last.
    settled_at: Option<usize>,
    exits: Vec<OneExit>,
}

/// What one exit says.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OneExit {
    exit_layer: usize,
    /// Of the token that stands there, in nats.
    logprob: Option<f64>,
    top: Vec<ExitChoice>,
}

/// One of an exit's most likely tokens.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExitChoice {
    token_id: u32,
    token: String,
    logprob: f64,
}

/// No shared fields.
#[derive(Debug, Deserialize)]
struct Nothing {}

/// What every exit would have said.
#[utoipa::path(post, path = "/v1/exits", request_body = ExitsRequest, responses(
    (status = 200, body = Exits), (status = 400, body = ErrorBody)))]
pub(crate) async fn read(State(app): State<Arc<App>>, raw: RawBody) -> Result<Response> {
    let body = body::read::<ExitsRequest, Nothing>(&raw.bytes)?;
    let asked = body.own;
    app.models.resolve(asked.model.as_deref())?;
    let top = asked.top_k.unwrap_or(5);
    if !(1..=MOST_LOGPROBS).contains(&top) {
        let message = format!("top_k is {top}: give 1 to {MOST_LOGPROBS}");
        return Err(ApiError::invalid("top_k", message));
    }
    let mut prompts = asked.prompt.encode(&app, true).await?;
    let (Some(prompt), true) = (prompts.pop(), prompts.is_empty()) else {
        return Err(ApiError::invalid("prompt", "give one prompt"));
    };
    let from = asked.from.unwrap_or(1).max(1);
    if prompt.ids.len() > app.context {
        return Err(ApiError::context_length(prompt.ids.len(), app.context));
    }
    let positions = (prompt.ids.len() + 1).saturating_sub(from);
    if positions > MOST_POSITIONS {
        let message =
            format!("there are {positions} positions from {from} on: ask for at most {MOST_POSITIONS}");
        return Err(ApiError::invalid("from", message));
    }
    let exits = asked.exits.unwrap_or_else(|| (1..=app.layers()).collect());
    if exits.is_empty() || exits.len() > app.layers() {
        return Err(ApiError::invalid("exits", format!("exits: give 1 to {} of them", app.layers())));
    }
    let reader = ExitReader::new(app.pipeline.model(), &prompt.ids, &exits, top, from);
    let reader = reader.map_err(|error| ApiError::invalid("exits", error.to_string()))?;
    let exit_layers = reader.exit_layers().to_vec();
    let readings = readings(&app, reader).await?;
    let found = Exits {
        object: "exits",
        model: app.models.shown(asked.model.as_deref()),
        positions: readings.iter().map(|reading| position(&app, &exit_layers, reading)).collect(),
        exit_layers,
    };
    Ok(with_ignored(Json(found).into_response(), &body.ignored))
}

async fn readings(app: &App, reader: ExitReader) -> Result<Vec<ExitReading>> {
    // It takes a place, as a text does.
    let Ok(_place) = Arc::clone(&app.places).try_acquire_owned() else {
        app.metrics.refused();
        let message = "no more texts can wait: try again soon";
        return Err(ApiError::status(StatusCode::TOO_MANY_REQUESTS, message).with_code("queue_full"));
    };
    let (listener, mut receiver) = unbounded_channel();
    let _ = app.commands.send(Command::Exits(Box::new(reader), listener));
    let mut all = Vec::new();
    while let Some(readings) = receiver.recv().await {
        all.extend(readings.map_err(|error| ApiError::status(StatusCode::INTERNAL_SERVER_ERROR, error))?);
    }
    Ok(all)
}

fn position(app: &App, exit_layers: &[usize], reading: &ExitReading) -> ExitPosition {
    let tokenizer = app.pipeline.tokenizer();
    let first = |exit: &Logprobs| exit.top.first().map(|top| top.0);
    let last = reading.exits.last().and_then(first);
    let settled = reading.exits.iter().rposition(|exit| first(exit) != last).map_or(0, |index| index + 1);
    let choice = |&(token_id, logprob): &(u32, f64)| ExitChoice {
        token_id,
        token: name(tokenizer, token_id),
        logprob: finite(logprob),
    };
    let exits = exit_layers.iter().zip(&reading.exits).map(|(&exit_layer, exit)| OneExit {
        exit_layer,
        logprob: exit.logprob.map(finite),
        top: exit.top.iter().map(choice).collect(),
    });
    ExitPosition {
        position: reading.position,
        token_id: reading.token,
        token: reading.token.map(|id| name(tokenizer, id)),
        settled_at: exit_layers.get(settled).copied(),
        exits: exits.collect(),
    }
}
