//! `/openapi.json`: what every endpoint takes and answers.

use crate::{chat, completions, exits, health, metrics, models, responses, tokens};
use axum::Json;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "offramp",
        description = "Language models that can be left early, behind OpenAI's interface"
    ),
    paths(
        models::list,
        models::one,
        completions::complete,
        chat::answer,
        responses::respond,
        exits::read,
        tokens::tokenize,
        tokens::detokenize,
        tokens::info,
        health::ready,
        health::live,
        metrics::show,
        show,
    )
)]
struct Document;

/// This description.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
pub(crate) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
