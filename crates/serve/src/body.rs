//! Reads the JSON of a request: errors name the field, and fields that nobody knows are named, too.

use crate::app::App;
use crate::error::{ApiError, Result};
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_LENGTH;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// More than any prompt may have, in JSON.
pub(crate) const MOST: usize = 8 << 20;
/// Bodies up to here are read at once. Longer ones wait for one of a few places, so that many of them do not
/// fill the memory.
const SMALL: u64 = 64 << 10;
/// Long bodies at a time.
pub(crate) const LONG_BODIES: usize = 4;
/// The time in which a body must have come.
const PATIENCE: Duration = Duration::from_secs(60);

/// The bytes of a request. What goes wrong on the way is told as every error is.
#[derive(Debug)]
pub(crate) struct RawBody {
    pub(crate) bytes: Bytes,
    /// Kept until the request has been read and its prompts are encoded.
    _place: Option<OwnedSemaphorePermit>,
}

impl FromRequest<Arc<App>> for RawBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self> {
        let length = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let take = async {
            let place = match length {
                Some(length) if length <= SMALL => None,
                _ => Arc::clone(&app.long_bodies).acquire_owned().await.ok(),
            };
            (Bytes::from_request(request, app).await, place)
        };
        let Ok((bytes, _place)) = timeout(PATIENCE, take).await else {
            let message = "the body did not come in time: send it at once";
            return Err(ApiError::status(StatusCode::REQUEST_TIMEOUT, message));
        };
        match bytes {
            Ok(bytes) => Ok(Self { bytes, _place }),
            Err(rejection) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => Err(too_long()),
            Err(rejection) => {
                let message = format!("the body did not come whole: {}", rejection.body_text());
                Err(ApiError::status(StatusCode::BAD_REQUEST, message))
            }
        }
    }
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
