//! Reads the JSON of a request: errors name the field, and fields that nobody knows are named, too.

use crate::app::App;
use crate::error::{ApiError, Result};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use futures_util::StreamExt;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// More than any prompt may have, in JSON.
pub(crate) const MOST: usize = 8 << 20;
/// What of a body is read without asking.
const SMALL: usize = 64 << 10;
/// What is beyond that, of all bodies together, in KiB: many long ones must not fill the memory.
pub(crate) const LONG_BODIES: usize = 64 << 10;
/// The time in which a body must have come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bytes of a request. What goes wrong on the way is told as every error is.
#[derive(Debug)]
pub(crate) struct RawBody {
    pub(crate) bytes: Vec<u8>,
    /// Kept until the request has been read and its prompts are encoded.
    _place: Option<OwnedSemaphorePermit>,
}

impl FromRequest<Arc<App>> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        let read = read_body(request.into_body(), &app.long_bodies);
        timeout(PATIENCE, read).await.unwrap_or_else(|_| {
            let message = "the body did not come in time: send it at once, or later";
            Err(ApiError::status(StatusCode::REQUEST_TIMEOUT, message))
        })
    }
}

/// Reads a body, and takes places for what is long of it as it comes.
async fn read_body(body: axum::body::Body, long_bodies: &Arc<Semaphore>) -> Result<RawBody> {
    let (mut chunks, mut bytes) = (body.into_data_stream(), Vec::new());
    let mut place: Option<OwnedSemaphorePermit> = None;
    while let Some(chunk) = chunks.next().await {
        let chunk =
            chunk.map_err(|error| ApiError::malformed(format!("the body did not come whole: {error}")))?;
        let length = bytes.len() + chunk.len();
        if length > MOST {
            return Err(too_long());
        }
        let wanted = length.saturating_sub(SMALL).div_ceil(1 << 10);
        let more = wanted - place.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if more > 0 {
            let taken =
                Arc::clone(long_bodies).acquire_many_owned(u32::try_from(more).unwrap_or(u32::MAX)).await;
            match (&mut place, taken) {
                (Some(place), Ok(taken)) => place.merge(taken),
                (place, taken) => *place = taken.ok(),
            }
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(RawBody { bytes, _place: place })
}

/// The error of a body that is longer than [`MOST`].
pub(crate) fn too_long() -> ApiError {
    let message = format!("the body is longer than {} MiB: send less in one request", MOST >> 20);
    ApiError::status(StatusCode::PAYLOAD_TOO_LARGE, message)
}

/// A request: the fields of its endpoint, those that all endpoints share, and the names of all others.
#[derive(Debug)]
pub(crate) struct Body<T, C> {
    pub(crate) own: T,
    pub(crate) shared: C,
    pub(crate) ignored: Vec<String>,
}

/// Reads one object twice: for the endpoint's fields and for the shared ones.
pub(crate) fn read<'b, T: Deserialize<'b>, C: Deserialize<'b>>(bytes: &'b [u8]) -> Result<Body<T, C>> {
    let (own, not_own) = read_known(bytes)?;
    let (shared, not_shared) = read_known(bytes)?;
    let top = |path: &String| path.split('.').next().unwrap_or_default().to_owned();
    let strangers = |paths: &BTreeSet<String>, others: &BTreeSet<String>| {
        paths.iter().filter(|path| others.contains(&top(path))).cloned().collect::<BTreeSet<_>>()
    };
    // What lies within a field is unknown if the reader of that field says so.
    let mut ignored = strangers(&not_own, &not_shared);
    ignored.extend(strangers(&not_shared, &not_own));
    Ok(Body { own, shared, ignored: ignored.into_iter().collect() })
}

/// Reads the fields of one struct; the paths of all others.
fn read_known<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Result<(T, BTreeSet<String>)> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'{') {
        return Err(ApiError::malformed(
            "the body is not a JSON object: send one, as {\"prompt\": \"Once\"}",
        ));
    }
    let mut ignored = BTreeSet::new();
    let mut note = |path: serde_ignored::Path<'_>| {
        ignored.insert(path.to_string().replace(".?", ""));
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let found = serde_ignored::deserialize(tracked, &mut note);
    let found = found.map_err(|error| {
        let path = track.path().to_string();
        match path.as_str() {
            "." | "?" => ApiError::malformed(format!("the body cannot be read: {error}")),
            path => ApiError::invalid(path, format!("{path}: {error}")),
        }
    })?;
    json.end().map_err(|error| ApiError::malformed(format!("the body cannot be read: {error}")))?;
    Ok((found, ignored))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Own {
        prompt: Option<String>,
        options: Option<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        usage: Option<bool>,
    }

    #[derive(Debug, Deserialize)]
    struct Shared {
        temperature: Option<f32>,
    }

    fn parse(text: &str) -> Result<Body<Own, Shared>> {
        read(text.as_bytes())
    }

    #[test]
    fn fields_of_both_are_read_and_all_others_are_named() {
        let text = r#"{"prompt": "a", "temperature": 0.5, "best": 1, "options": {"usage": true, "x": {}}}"#;
        let body = parse(text).unwrap();
        assert_eq!(body.own.prompt.as_deref(), Some("a"));
        assert_eq!(body.own.options.unwrap().usage, Some(true));
        assert_eq!(body.shared.temperature, Some(0.5));
        assert_eq!(body.ignored, ["best", "options.x"]);
    }

    #[test]
    fn an_error_names_the_field() {
        for (text, param, says) in [
            (r#"{"temperature": "hot"}"#, Some("temperature"), "temperature: invalid type"),
            (r#"{"options": {"usage": 3}}"#, Some("options.usage"), "options.usage: invalid type"),
            (r#"{"prompt": "a""#, None, "cannot be read"),
            (r#"{"prompt": "a"} x"#, None, "trailing"),
            ("[]", None, "not a JSON object"),
            ("", None, "not a JSON object"),
        ] {
            let error = parse(text).unwrap_err().detail;
            assert_eq!(error.param.as_deref(), param, "{text}: {}", error.message);
            assert!(error.message.contains(says) && !error.message.contains('\n'), "{}", error.message);
        }
        let deep = format!("{{\"prompt\": {}", "[".repeat(100_000));
        assert!(parse(&deep).unwrap_err().detail.message.contains("prompt"));
    }
}
