//! Requests to the hub: redirects, the token, retries, and what refusals mean.

use crate::address::{escaped_path, host, join, origin};
use crate::error::{Error, Result};
use crate::fetch::{Event, Observer};
use crate::id::Id;
use crate::settings::Settings;
use offramp_files::one_line;
use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use ureq::http::{HeaderMap, Method, Request, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// More redirects than any hub needs.
const MAX_REDIRECTS: usize = 8;
/// How often a request is tried.
const TRIES: u32 = 5;
/// The longest wait that a server may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The hub, as this process reaches it.
#[derive(Debug)]
pub struct Hub {
    agent: Agent,
    pub(crate) settings: Settings,
}

/// What a request is about, for messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) id: &'a Id,
    pub(crate) file: Option<&'a str>,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) address: String,
    /// The first byte that is wanted.
    pub(crate) from: u64,
}

/// An answer with a body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// The digest that the hub itself named, before it sent the request elsewhere.
    pub(crate) etag: Option<String>,
    /// The length that the hub itself named.
    pub(crate) size: Option<u64>,
    pub(crate) body: Body,
    pub(crate) address: String,
}

/// Why there is no answer.
enum Fault {
    /// It would be the same the next time.
    Final(Box<Error>),
    /// Nobody is there. Once something came, this may pass.
    Nobody { host: String, reason: String },
    /// It may pass.
    Passing { error: Box<Error>, wait: Option<Duration> },
}

impl Fault {
    fn of(error: Error) -> Self {
        Self::Final(Box::new(error))
    }
}

impl Hub {
    /// A client with these settings.
    ///
    /// # Errors
    /// If the file of certificates cannot be used.
    pub fn new(settings: Settings) -> Result<Self> {
        let tls = TlsConfig::builder().root_certs(roots(&settings)?).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0) // each is looked at before the token goes along
            .timeout_connect(Some(settings.timeout))
            .timeout_recv_response(Some(settings.timeout.max(Duration::from_secs(30))))
            .timeout_per_read(Some(settings.timeout))
            .user_agent(concat!("offramp/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls);
        Ok(Self { agent: config.build().into(), settings })
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Asks the hub's interface about a model.
    pub(crate) fn ask(&self, id: &Id, path: &str, observer: Observer<'_>) -> Result<Answer> {
        let address = format!("{}/{path}", self.settings.endpoint);
        self.call(Asked { id, file: None }, Call { method: Method::GET, address, from: 0 }, observer)
    }

    /// Asks for a file, or with the method HEAD about it.
    pub(crate) fn file(&self, asked: Asked<'_>, commit: &str, method: Method, from: u64) -> Call {
        let file = asked.file.map(escaped_path).unwrap_or_default();
        let address = format!("{}/{}/resolve/{commit}/{file}", self.settings.endpoint, asked.id.repository());
        Call { method, address, from }
    }

    /// Sends a request until it is answered, with pauses. Who waits is told.
    pub(crate) fn call(&self, asked: Asked<'_>, call: Call, observer: Observer<'_>) -> Result<Answer> {
        for tried in 1.. {
            let (error, wait) = match self.once(asked, &call) {
                Ok(answer) => return Ok(answer),
                Err(Fault::Final(error)) => return Err(*error),
                Err(Fault::Nobody { host, reason }) if call.from == 0 => {
                    return Err(Error::Unreachable { host, reason, kept: false });
                }
                Err(Fault::Nobody { host, reason }) => {
                    (Box::new(Error::Unreachable { host, reason, kept: true }), None)
                }
                Err(Fault::Passing { error, wait }) => (error, wait),
            };
            if tried == TRIES || wait.is_some_and(|wait| wait > LONGEST_WAIT) {
                return Err(*error);
            }
            self.pause(tried, wait, &error, observer);
        }
        unreachable!("the last try returns")
    }

    /// Waits before the next try, longer each time, and says why.
    pub(crate) fn pause(&self, tried: u32, wait: Option<Duration>, error: &Error, observer: Observer<'_>) {
        let wait = wait.unwrap_or(self.settings.pause * 2u32.pow(tried - 1));
        let reason = match error {
            Error::Unreachable { host, reason, .. } => format!("{host}: {reason}"),
            Error::Status { host, status, .. } => format!("{host} answers {status}"),
            other => other.to_string(),
        };
        observer(Event::Note(&format!("{reason}; tries again in {} s", wait.as_secs_f64().ceil())));
        thread::sleep(wait);
    }

    /// Sends a request and follows its redirects.
    fn once(&self, asked: Asked<'_>, call: &Call) -> std::result::Result<Answer, Fault> {
        let home = origin(&self.settings.endpoint);
        let mut address = call.address.clone();
        let (mut etag, mut size) = (None, None);
        for _ in 0..=MAX_REDIRECTS {
            let at_home = origin(&address) == home;
            let response = self.send(call, &address, at_home)?;
            let status = response.status().as_u16();
            let headers = response.headers();
            if at_home {
                etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag")).or(etag);
                size = number(headers, "x-linked-size").or(size);
            }
            let location = text(headers, "location").filter(|_| (300..400).contains(&status));
            let Some(location) = location else {
                return self.answered(asked, Answer::new(response, etag, size, address));
            };
            let next = redirected(&address, &location).map_err(Fault::of)?;
            if call.method == Method::HEAD && origin(&next) != home {
                return Ok(Answer::new(response, etag, size, address)); // the hub's own headers are wanted
            }
            address = next;
        }
        let place = offramp_files::legible(host(&address));
        let reason = "it has done so too often";
        Err(Fault::of(Error::Redirect { host: host(&call.address).to_owned(), place, reason }))
    }

    fn send(&self, call: &Call, address: &str, at_home: bool) -> std::result::Result<Response<Body>, Fault> {
        let mut request = Request::builder().method(call.method.clone()).uri(address);
        if call.from > 0 {
            request = request.header("range", format!("bytes={}-", call.from));
        }
        if let Some(token) = self.settings.token.as_ref().filter(|_| at_home) {
            request = request.header("authorization", token.header());
        }
        let place = || host(address).to_owned();
        let request = request.body(()).map_err(|error| {
            Fault::of(Error::NotTheHub { host: place(), reason: one_line(&error.to_string()) })
        })?;
        self.agent.run(request).map_err(|error| self.unanswered(place(), &error, call.from > 0))
    }

    /// Why nothing came back.
    fn unanswered(&self, host: String, error: &ureq::Error, kept: bool) -> Fault {
        let reason = self.reason(error);
        let passes = match error {
            ureq::Error::Io(error) => may_pass(error.kind()),
            ureq::Error::Timeout(_) | ureq::Error::Protocol(_) => true,
            _ => false,
        };
        match passes {
            true => Fault::Passing { error: Box::new(Error::Unreachable { host, reason, kept }), wait: None },
            false => Fault::Nobody { host, reason },
        }
    }

    /// An error of the connection, in words.
    pub(crate) fn reason(&self, error: &ureq::Error) -> String {
        match error {
            ureq::Error::Timeout(_) => self.stalled(),
            ureq::Error::HostNotFound => "there is no such host".to_owned(),
            ureq::Error::Io(error) if is_timeout(error) => self.stalled(),
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => {
                format!("{} (SSL_CERT_FILE may name certificates to trust)", one_line(&error.to_string()))
            }
            ureq::Error::Io(error) => one_line(&error.to_string()),
            other => one_line(&other.to_string()),
        }
    }

    /// What is said of a silence.
    pub(crate) fn stalled(&self) -> String {
        format!("nothing came for {} s", self.settings.timeout.as_secs_f64().ceil())
    }

    /// What an answer's status means.
    fn answered(&self, asked: Asked<'_>, answer: Answer) -> std::result::Result<Answer, Fault> {
        let status = answer.status;
        if matches!(status, 200 | 206 | 416) {
            return Ok(answer);
        }
        let place = host(&answer.address).to_owned();
        let said = |name| text(&answer.headers, name).unwrap_or_default();
        let (code, message) = (said("x-error-code"), said("x-error-message"));
        let other = Error::Status { host: place.clone(), status, message };
        let at_home = origin(&answer.address) == origin(&self.settings.endpoint);
        // An address that the hub signed may have expired: the next try gets another.
        if matches!(status, 408 | 429 | 500..) || !at_home {
            let wait = number(&answer.headers, "retry-after").map(Duration::from_secs);
            return Err(Fault::Passing { error: Box::new(other), wait });
        }
        let (id, token) = (asked.id.repository(), self.settings.token.is_some());
        let (endpoint, file) = (&self.settings.endpoint, asked.file.map(str::to_owned));
        let settings = format!("{endpoint}/settings/tokens");
        let nothing =
            || Error::NoRepository { id: id.clone(), host: place.clone(), alike: Vec::new(), token };
        Err(Fault::of(match (status, &*code, file) {
            (_, "GatedRepo", _) => Error::Gated { page: format!("{endpoint}/{id}"), id, settings, token },
            (_, "RevisionNotFound", _) => {
                Error::NoRevision { id, revision: asked.id.revision().to_owned(), known: Vec::new() }
            }
            (404, "EntryNotFound" | "", Some(file)) => Error::NoFile { id, file, known: Vec::new() },
            (_, "RepoNotFound", _) | (404, "", None) => nothing(),
            (401, ..) if token => Error::Token { host: place, settings },
            (401, ..) => nothing(),
            _ => other,
        }))
    }
}

impl Answer {
    fn new(response: Response<Body>, etag: Option<String>, size: Option<u64>, address: String) -> Self {
        let (parts, body) = response.into_parts();
        // Weak or not, what counts stands between the quotes.
        let bare = |etag: String| etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let etag = etag.map(bare);
        Self { status: parts.status.as_u16(), headers: parts.headers, etag, size, body, address }
    }

    /// The place of the first byte and the length of the whole, if this is a part of a file.
    pub(crate) fn range(&self) -> Option<(u64, Option<u64>)> {
        let text = text(&self.headers, "content-range").filter(|_| self.status == 206)?;
        let (range, whole) = text.strip_prefix("bytes ")?.split_once('/')?;
        Some((range.split_once('-')?.0.trim().parse().ok()?, whole.trim().parse().ok()))
    }

    /// The length of the body, if it is announced.
    pub(crate) fn length(&self) -> Option<u64> {
        number(&self.headers, "content-length")
    }
}

/// Where a redirect leads, if it may be followed.
fn redirected(address: &str, location: &str) -> Result<String> {
    // What follows the path may be a signature, which belongs into no message.
    let place = offramp_files::legible(location.split(['?', '#']).next().unwrap_or_default());
    let refused = |reason| Error::Redirect { host: host(address).to_owned(), place: place.clone(), reason };
    let next = join(address, location).ok_or_else(|| refused("it is no address of the web"))?;
    match address.starts_with("https://") && !next.starts_with("https://") {
        true => Err(refused("nobody could tell who answers without https")),
        false => Ok(next),
    }
}

/// A header as text.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}

/// Whether a connection that failed so may hold the next time.
fn may_pass(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock,
    };
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut | UnexpectedEof | WouldBlock)
}

pub(crate) fn is_timeout(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
        || matches!(inner, Some(ureq::Error::Timeout(_)))
}

/// Whose certificates are trusted.
fn roots(settings: &Settings) -> Result<RootCerts> {
    let Some(path) = &settings.certificates else { return Ok(RootCerts::WebPki) };
    let fault = |reason: String| Error::Certificates { path: path.clone(), reason };
    let pem = fs::read(path).map_err(|error| fault(error.to_string()))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.is_empty() {
        true => Err(fault("there is no certificate in it".to_owned())),
        false => Ok(RootCerts::Specific(Arc::new(certificates))),
    }
}
