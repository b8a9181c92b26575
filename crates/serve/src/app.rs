//! What all handlers share, and which handler answers what.

use crate::agreements::Agreements;
use crate::error::{ApiError, Result};
use crate::format::Grammars;
use crate::guard::{self, Access};
use crate::metrics::Metrics;
use crate::models::Models;
use crate::state::Shared;
use crate::tools::ToolFormat;
use crate::worker::Command;
use crate::{chat, completions, exits, health, metrics, models, openapi, page, responses, tokens};
use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::routing::{get, post};
use offramp_engine::Speculate;
use offramp_pipeline::{ChatTemplate, Drafts, Pipeline};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::Semaphore;
use tower_http::timeout::RequestBodyTimeoutLayer;

/// How long a body may pause.
const BODY_PAUSE: Duration = Duration::from_secs(10);

/// What all handlers share.
pub(crate) struct App {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) chat: Option<ChatSettings>,
    pub(crate) models: Models,
    pub(crate) fingerprint: String,
    /// Positions of one text.
    pub(crate) context: usize,
    /// Positions of all texts.
    pub(crate) kv_positions: usize,
    /// What happens where a request does not say.
    pub(crate) speculate: Speculate,
    pub(crate) drafts: Drafts,
    pub(crate) agreements: Agreements,
    pub(crate) grammars: Grammars,
    /// Texts that may run or wait.
    pub(crate) most_places: usize,
    pub(crate) places: Arc<Semaphore>,
    /// KiB of long bodies that may be in memory.
    pub(crate) long_bodies: Arc<Semaphore>,
    pub(crate) commands: Sender<Command>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) access: Access,
}

/// How conversations become prompts.
#[derive(Debug)]
pub(crate) struct ChatSettings {
    pub(crate) template: Arc<ChatTemplate>,
    /// The model's ends of text, and the template's own.
    pub(crate) stop_tokens: Vec<u32>,
    /// How the model writes a call of a tool, where that is known.
    pub(crate) tools: Option<ToolFormat>,
}

/// What names a reply.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    pub(crate) id: String,
    pub(crate) created: u64,
}

impl App {
    pub(crate) fn layers(&self) -> usize {
        self.pipeline.model().config().num_hidden_layers
    }

    /// A name for a new reply.
    pub(crate) fn new_head(&self, kind: &str) -> Head {
        Head { id: format!("{kind}-{:032x}", rand::random::<u128>()), created: now() }
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

/// Runs what may take long, away from the threads that answer.
pub(crate) async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let failed = |_| ApiError::status(StatusCode::INTERNAL_SERVER_ERROR, "the request could not be prepared");
    tokio::task::spawn_blocking(work).await.map_err(failed)?
}

/// Who answers what.
pub(crate) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::one))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/chat/completions", post(chat::answer))
        .route("/v1/responses", post(responses::respond))
        .route("/v1/exits", post(exits::read))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route("/health", get(health::ready))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::show))
        .route("/openapi.json", get(openapi::show))
        .route("/", get(page::index))
        .route("/page/{file}", get(page::file))
        .fallback(|| async {
            ApiError::status(StatusCode::NOT_FOUND, "there is nothing here: see /openapi.json")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::status(
                StatusCode::METHOD_NOT_ALLOWED,
                "this path has another method: see /openapi.json",
            )
        })
        .layer(RequestBodyTimeoutLayer::new(BODY_PAUSE))
        .layer(middleware::from_fn_with_state(Arc::clone(&app), guard::guard))
        .with_state(app)
}
