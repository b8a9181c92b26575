//! `/openapi.json`: what every endpoint takes and answers.

use crate::{chat, completions, exits, health, metrics, models, responses, tokens};
use axum::Json;
use utoipa::openapi::path::Operation;
use utoipa::openapi::{self, Content, Ref, ResponseBuilder};
use utoipa::{Modify, OpenApi};

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
    ),
    modifiers(&Refusals)
)]
struct Document;

/// What any request may meet, before it comes to its endpoint or in it.
struct Refusals;

/// Answers to any request.
const TO_ALL: [(&str, &str); 2] =
    [("401", "A key is missing or wrong"), ("403", "The Host or the Origin is not allowed")];
/// Answers to a request with a body, beside those.
const TO_BODIES: [(&str, &str); 7] = [
    ("400", "The request is wrong"),
    ("404", "There is no such model"),
    ("408", "The body takes too long"),
    ("413", "The body is too large"),
    ("429", "The queue is full"),
    ("500", "A fault in offramp itself"),
    ("503", "The server is ending"),
];

impl Modify for Refusals {
    fn modify(&self, document: &mut openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                TO_ALL.iter().for_each(|refusal| add(operation, refusal));
            }
            if let Some(operation) = &mut item.post {
                TO_BODIES.iter().for_each(|refusal| add(operation, refusal));
            }
        }
    }
}

/// Adds an answer that the operation does not describe by itself.
fn add(operation: &mut Operation, &(status, what): &(&str, &str)) {
    let body = || Content::new(Some(Ref::from_schema_name("ErrorBody")));
    let response = || ResponseBuilder::new().description(what).content("application/json", body()).build();
    operation.responses.responses.entry(status.to_owned()).or_insert_with(|| response().into());
}

/// This description.
#[utoipa::path(get, path = "/openapi.json", responses((status = 200, body = Object)))]
pub(crate) async fn show() -> Json<utoipa::openapi::OpenApi> {
    Json(Document::openapi())
}
