//! Whether the server lives, and whether it would answer.

use crate::app::App;
use crate::error::{ApiError, Result};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// Whether the process works at all; if not, it should be started again.
#[utoipa::path(get, path = "/health/live", responses((status = 200, body = Health), (status = 503)))]
pub(crate) async fn live(State(app): State<Arc<App>>) -> Result<Json<Health>> {
    if app.shared.is_alive() {
        return Ok(Json(Health { status: "ok" }));
    }
    let message = "the model's thread has ended: start the server again";
    Err(ApiError::status(StatusCode::SERVICE_UNAVAILABLE, message))
}

/// Whether it takes requests and its steps go on.
#[utoipa::path(get, path = "/health/ready", responses((status = 200, body = Health), (status = 503)))]
pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Json<Health>> {
    match app.shared.not_ready() {
        None => Ok(Json(Health { status: "ok" })),
        Some(why) => Err(ApiError::status(StatusCode::SERVICE_UNAVAILABLE, why)),
    }
}
