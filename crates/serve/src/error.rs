//! What a client is told when something is wrong: OpenAI's error object, with one line of text.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// An error of one request.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) detail: ErrorDetail,
}

/// The body of an error.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

/// What is wrong, and where.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct ErrorDetail {
    /// One line: what is wrong, where, and what to do.
    pub(crate) message: String,
    /// `invalid_request_error`, `rate_limit_error`, `server_error`, …
    pub(crate) r#type: &'static str,
    /// The field that is wrong.
    pub(crate) param: Option<String>,
    /// A name for programs, such as `context_length_exceeded`.
    pub(crate) code: Option<&'static str>,
}

pub(crate) type Result<T> = std::result::Result<T, ApiError>;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = offramp_model::one_line(&message.into());
        Self { status, detail: ErrorDetail { message, r#type: kind, param: None, code: None } }
    }

    /// A value that cannot be used.
    pub(crate) fn invalid(param: &str, message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message);
        Self { detail: ErrorDetail { param: Some(param.to_owned()), ..error.detail }, ..error }
    }

    /// A request that cannot be read.
    pub(crate) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// A prompt that does not fit.
    pub(crate) fn context_length(tokens: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {tokens} tokens, and the context holds {context}, with at least one new token: shorten \
             the prompt"
        );
        Self::invalid("prompt", message).with_code("context_length_exceeded")
    }

    pub(crate) fn status(status: StatusCode, message: impl Into<String>) -> Self {
        let kind = match status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        Self::new(status, kind, message)
    }

    #[must_use]
    pub(crate) fn with_code(mut self, code: &'static str) -> Self {
        self.detail.code = Some(code);
        self
    }

    pub(crate) fn body(&self) -> ErrorBody {
        ErrorBody { error: self.detail.clone() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let name = HeaderName::from_static("retry-after");
            response.headers_mut().insert(name, HeaderValue::from_static("1"));
        }
        response
    }
}

/// What the engine or the pipeline refuses is the request's fault, unless the model itself is broken.
impl From<offramp_pipeline::Error> for ApiError {
    fn from(error: offramp_pipeline::Error) -> Self {
        match error {
            offramp_pipeline::Error::Engine(error) => error.into(),
            error => Self::malformed(error.to_string()),
        }
    }
}

impl From<offramp_engine::Error> for ApiError {
    fn from(error: offramp_engine::Error) -> Self {
        use offramp_engine::Error;
        match error {
            Error::ContextFull { tokens, context } => Self::context_length(tokens, context),
            Error::Sampling { option, .. } => Self::invalid(option, error.to_string()),
            Error::NotFinite { .. } | Error::OthersFailed => {
                Self::status(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
            }
            error => Self::malformed(error.to_string()),
        }
    }
}
