//! Who may ask: the key, and the pages whose scripts may. Without it, any page that a browser shows could
//! use a server on the same machine (DNS rebinding).

use crate::app::App;
use crate::body;
use crate::error::ApiError;
use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, AUTHORIZATION, CONTENT_LENGTH, HOST, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// Who may ask.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Keys, one of which a request must bear; none asks for none.
    pub api_keys: Vec<String>,
    /// Pages of other origins whose scripts may ask; `*` is all.
    pub cors_origins: Vec<String>,
    /// Whether the address is this machine's own: then `Host` must be, too.
    pub loopback: bool,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IGNORED: HeaderName = HeaderName::from_static("x-offramp-ignored");

/// Names the fields that nobody knew.
pub(crate) fn with_ignored(mut response: Response, ignored: &[String]) -> Response {
    if !ignored.is_empty() {
        let printable = |c: char| if c.is_ascii_graphic() { c } else { '?' };
        let names: Vec<String> =
            ignored.iter().take(32).map(|name| name.chars().take(64).map(printable).collect()).collect();
        if let Ok(value) = HeaderValue::from_str(&names.join(", ")) {
            response.headers_mut().insert(IGNORED, value);
        }
    }
    response
}

/// Checks a request, and marks its response.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).cloned();
    let preflight = request.method() == Method::OPTIONS && origin.is_some();
    let mut response = match app.access.check(&request) {
        Err(error) => error.into_response(),
        Ok(()) if preflight => StatusCode::NO_CONTENT.into_response(),
        Ok(()) => next.run(request).await,
    };
    let id = format!("req-{:016x}", rand::random::<u64>());
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    if let Some(origin) = origin.filter(|origin| app.access.is_named(origin)) {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(VARY, HeaderValue::from_static("origin"));
        let allowed = HeaderValue::from_static("authorization, content-type");
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        let exposed = HeaderValue::from_static("x-request-id, x-offramp-ignored, retry-after");
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
    response
}

impl Access {
    fn check(&self, request: &Request) -> Result<(), ApiError> {
        let headers = request.headers();
        let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > body::MOST as u64) {
            return Err(body::too_long());
        }
        let mut hosts = headers.get_all(HOST).iter();
        let (host, second) = (hosts.next(), hosts.next());
        if second.is_some() || host.is_none() && request.version() == Version::HTTP_11 {
            let message = "a request names one Host";
            return Err(ApiError::status(StatusCode::BAD_REQUEST, message));
        }
        let authority = request.uri().authority().map(|authority| authority.as_str());
        let named = [host.and_then(|host| host.to_str().ok()), authority];
        let strange = host.is_some_and(|host| host.to_str().is_err());
        if self.loopback && (strange || !named.into_iter().flatten().all(is_loopback)) {
            let message = "this server answers on this machine only, and the request names another host: start it with \
                           --host to answer others";
            return Err(ApiError::status(StatusCode::FORBIDDEN, message));
        }
        if let Some(origin) = headers.get(ORIGIN)
            && !self.is_own(origin, headers)
            && !self.is_named(origin)
        {
            let message = "a page of another origin asks: start the server with --cors-origin to let it";
            return Err(ApiError::status(StatusCode::FORBIDDEN, message));
        }
        let path = request.uri().path();
        let open = path.starts_with("/health") || path == "/" || path.starts_with("/page/");
        if open || self.api_keys.is_empty() || request.method() == Method::OPTIONS {
            return Ok(());
        }
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if self.api_keys.iter().any(|key| same(key.as_bytes(), given.as_bytes())) {
            return Ok(());
        }
        let message = "the request bears no valid key: send \"Authorization: Bearer KEY\"";
        Err(ApiError::status(StatusCode::UNAUTHORIZED, message).with_code("invalid_api_key"))
    }

    /// Whether the request comes from the server's own page.
    fn is_own(&self, origin: &HeaderValue, headers: &HeaderMap) -> bool {
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let origin = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        host.is_some() && host == origin
    }

    fn is_named(&self, origin: &HeaderValue) -> bool {
        self.cors_origins.iter().any(|named| named == "*" || named.as_bytes() == origin.as_bytes())
    }
}

/// Whether a `Host` is this machine, whatever the port.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Compares in a time that does not tell how much is alike.
fn same(one: &[u8], other: &[u8]) -> bool {
    let differ = one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b));
    differ == 0 && one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_this_machine_or_not() {
        let is = is_loopback;
        for own in ["localhost", "LOCALHOST:80", "127.0.0.1:8080", "127.1.2.3", "[::1]:80", "[::1]"] {
            assert!(is(own), "{own}");
        }
        for other in
            ["example.org", "localhost.example.org", "192.168.0.1:80", "[fe80::1]", "", "127.0.0.1.nip.io"]
        {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn keys_are_compared_whole() {
        assert!(same(b"abc", b"abc") && !same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"a", b""));
    }
}
