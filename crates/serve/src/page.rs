//! The page at `/`: its files are part of the program.

use crate::error::{ApiError, Result};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};

/// The page asks nobody but this server, and no other page may frame it.
const POLICY: &str = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const INDEX: &[u8] = include_bytes!("page/index.html");

/// A file and its name.
macro_rules! file {
    ($name:literal) => {
        ($name, include_bytes!(concat!("page/", $name)))
    };
}

/// The files beside the page.
const FILES: &[(&str, &[u8])] = &[
    file!("app.css"),
    file!("app.js"),
    file!("candidates.js"),
    file!("chat.js"),
    file!("depths.js"),
    file!("desk.js"),
    file!("element.js"),
    file!("events.js"),
    file!("grid.js"),
    file!("icon.svg"),
    file!("legend.js"),
    file!("lens.js"),
    file!("meter.js"),
    file!("problem.js"),
    file!("run.js"),
    file!("server.js"),
    file!("settings.js"),
    file!("shade.js"),
    file!("source.js"),
    file!("tokens.js"),
    file!("write.js"),
];

/// The page.
pub(crate) async fn index() -> Response {
    page("text/html; charset=utf-8", INDEX)
}

/// A file of the page.
pub(crate) async fn file(Path(asked): Path<String>) -> Result<Response> {
    let found = FILES.iter().find(|(name, _)| *name == asked);
    let (name, bytes) =
        found.ok_or_else(|| ApiError::status(StatusCode::NOT_FOUND, "the page has no such file"))?;
    let kind = match name.rsplit('.').next() {
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    Ok(page(kind, bytes))
}

fn page(kind: &'static str, bytes: &'static [u8]) -> Response {
    let headers = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, bytes).into_response()
}
