//! The models that a client can name: the one that was loaded, at any of its exits.

use crate::app::App;
use crate::error::{ApiError, Result};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The name of the model, and its depth.
#[derive(Clone, Debug)]
pub(crate) struct Models {
    pub(crate) id: String,
    /// Where it was loaded from.
    pub(crate) root: String,
    pub(crate) layers: usize,
    pub(crate) created: u64,
}

/// The models.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelList {
    object: &'static str,
    data: Vec<ModelEntry>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelEntry {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: String,
    parent: Option<String>,
    /// Positions of prompt and new text together.
    max_model_len: usize,
    num_hidden_layers: usize,
    /// Layers after which the head may be read.
    exit_layers: Vec<usize>,
    /// Whether it has a chat template.
    chat: bool,
    /// Whether a request may name an agreement.
    agreement: bool,
    /// What happens where a request does not say.
    speculate: String,
}

impl Models {
    /// The exit layer that a model's name asks for.
    ///
    /// # Errors
    /// If there is no such model.
    pub(crate) fn resolve(&self, name: Option<&str>) -> Result<Option<usize>> {
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        if self.is_named(name) {
            return Ok(None);
        }
        let exit = name.rsplit_once('@').filter(|(name, _)| self.is_named(name));
        if let Some(exit) = exit.and_then(|(_, exit)| exit.parse().ok()) {
            return Ok(Some(exit));
        }
        let message = format!(
            "the model {name:?} does not exist: this server has {:?}, and {:?} to leave it after layer {}",
            self.id,
            format!("{}@{}", self.id, self.layers.div_ceil(2)),
            self.layers.div_ceil(2)
        );
        let error = ApiError::status(StatusCode::NOT_FOUND, message);
        Err(error.with_code("model_not_found"))
    }

    fn is_named(&self, name: &str) -> bool {
        name == self.id || name == self.root
    }

    /// What a reply calls the model: as the request did.
    pub(crate) fn shown(&self, name: Option<&str>) -> String {
        name.filter(|name| !name.is_empty()).unwrap_or(&self.id).to_owned()
    }
}

fn entry(app: &App) -> ModelEntry {
    ModelEntry {
        id: app.models.id.clone(),
        object: "model",
        created: app.models.created,
        owned_by: "offramp",
        root: app.models.root.clone(),
        parent: None,
        max_model_len: app.context,
        num_hidden_layers: app.layers(),
        exit_layers: (1..=app.layers()).collect(),
        chat: app.chat.is_some(),
        agreement: app.agreements.are_offered(),
        speculate: app.speculate.to_string(),
    }
}

/// The models.
#[utoipa::path(get, path = "/v1/models", responses((status = 200, body = ModelList)))]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    Json(ModelList { object: "list", data: vec![entry(&app)] })
}

/// One model.
#[utoipa::path(get, path = "/v1/models/{model}", params(("model" = String, Path)),
    responses((status = 200, body = ModelEntry), (status = 404, body = crate::error::ErrorBody)))]
pub(crate) async fn one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Json<ModelEntry>> {
    app.models.resolve(Some(&name))?;
    Ok(Json(ModelEntry { id: name, ..entry(&app) }))
}
