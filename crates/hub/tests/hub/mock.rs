//! A hub in the process of a test: models, a second host for large files, and whatever a test makes it do
//! wrong.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

pub(crate) const COMMIT: &str = "0123456789012345678901234567890123456789";

/// A file of a model. Large ones lie on the second host, as those of git-lfs do.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) bytes: Vec<u8>,
    pub(crate) etag: String,
    pub(crate) large: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Model {
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, File>,
    /// Its terms must be accepted: files are refused.
    pub(crate) gated: bool,
    /// Files are listed without lengths and digests, as some mirrors do.
    pub(crate) bare: bool,
}

/// What a test is shown of a request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    /// Whether it came to the second host.
    pub(crate) elsewhere: bool,
}

/// What is sent back.
#[derive(Clone, Default)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// So many bytes of the body are sent before the connection ends.
    pub(crate) cut: Option<usize>,
    /// The wait in the middle of the body.
    pub(crate) stall: Option<Duration>,
}

type Twist = Box<dyn FnMut(&Request, Reply) -> Reply + Send>;

#[derive(Default)]
struct State {
    models: BTreeMap<String, Model>,
    requests: Vec<Request>,
    twist: Option<Twist>,
}

/// The two hosts. Their threads live as long as the process.
pub(crate) struct MockHub {
    pub(crate) address: SocketAddr,
    elsewhere: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(crate) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.retain(|(known, _)| known != name);
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

impl MockHub {
    pub(crate) fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let (home, away) =
            (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let hub = Self {
            address: home.local_addr().unwrap(),
            elsewhere: away.local_addr().unwrap(),
            state: state.clone(),
        };
        let place = hub.elsewhere;
        for (listener, elsewhere) in [(home, false), (away, true)] {
            let state = state.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let state = state.clone();
                    thread::spawn(move || answer(&stream, &state, elsewhere, place));
                }
            });
        }
        hub
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of the second host.
    pub(crate) fn elsewhere(&self) -> String {
        format!("http://{}", self.elsewhere)
    }

    pub(crate) fn add(&self, id: &str, model: Model) {
        self.state.lock().unwrap().models.insert(id.to_owned(), model);
    }

    /// Lets a test change replies.
    pub(crate) fn twist(&self, twist: impl FnMut(&Request, Reply) -> Reply + Send + 'static) {
        self.state.lock().unwrap().twist = Some(Box::new(twist));
    }

    pub(crate) fn behave(&self) {
        self.state.lock().unwrap().twist = None;
    }

    /// The requests since the last call.
    pub(crate) fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }
}

impl Model {
    pub(crate) fn new(files: impl IntoIterator<Item = (&'static str, File)>) -> Self {
        let files = files.into_iter().map(|(path, file)| (path.to_owned(), file)).collect();
        Self { commit: COMMIT.to_owned(), files, ..Self::default() }
    }
}

fn answer(stream: &TcpStream, state: &Mutex<State>, elsewhere: bool, place: SocketAddr) {
    let Some(request) = read(stream, elsewhere) else { return };
    let reply = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        let reply = match elsewhere {
            true => large(&request, &state.models),
            false => route(&request, &state.models, place),
        };
        match &mut state.twist {
            Some(twist) => twist(&request, reply),
            None => reply,
        }
    };
    write(stream, &request, &reply);
}

fn read(stream: &TcpStream, elsewhere: bool) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let line = lines.next()?.ok()?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    Some(Request { method, path, headers, elsewhere })
}

fn write(mut stream: &TcpStream, request: &Request, reply: &Reply) {
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !reply.headers.iter().any(|(name, _)| name == "content-length") {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    let _ = stream.write_all((head + "\r\n").as_bytes());
    if request.method != "HEAD" {
        let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
        let middle = if reply.stall.is_some() { body.len() / 2 } else { 0 };
        let _ = stream.write_all(&body[..middle]);
        if let Some(stall) = reply.stall {
            let _ = stream.flush();
            thread::sleep(stall);
        }
        let _ = stream.write_all(&body[middle..]);
    }
    let _ = stream.flush();
}

fn refused(status: u16, code: &str) -> Reply {
    let reply = Reply::new(status, format!("{{\"error\":\"{code}\"}}"));
    if code.is_empty() { reply } else { reply.with("x-error-code", code) }
}

/// The hub's own host.
fn route(request: &Request, models: &BTreeMap<String, Model>, place: SocketAddr) -> Reply {
    let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
    if path == "/api/models" {
        let words = query.split('&').find_map(|part| part.strip_prefix("search=")).unwrap_or_default();
        let author = query.split('&').find_map(|part| part.strip_prefix("author="));
        let fits = |id: &&String| {
            id.contains(words) && author.is_none_or(|author| id.starts_with(&format!("{author}/")))
        };
        let found = models.keys().filter(fits).map(|id| format!("{{\"id\":\"{id}\"}}"));
        return Reply::new(200, format!("[{}]", found.collect::<Vec<_>>().join(",")));
    }
    let parts: Vec<&str> =
        path.trim_start_matches("/api/models").trim_start_matches('/').split('/').collect();
    let [organization, name, kind, rest @ ..] = &parts[..] else { return refused(404, "") };
    let Some(model) = models.get(&format!("{organization}/{name}")) else {
        return refused(401, "RepoNotFound"); // who is nobody is not told what is private
    };
    let known = rest.first().is_some_and(|revision| ["main", "v1", &model.commit].contains(revision));
    match *kind {
        "refs" => Reply::new(200, r#"{"branches":[{"name":"main"}],"tags":[{"name":"v1"}]}"#),
        _ if !known => refused(404, "RevisionNotFound"),
        "revision" => Reply::new(200, listing(model)),
        _ if model.gated => refused(403, "GatedRepo"),
        _ => file(request, model, &rest[1..].join("/"), place),
    }
}

fn listing(model: &Model) -> String {
    let files = model.files.iter().map(|(path, file)| {
        let (path, size, etag) = (serde_json::to_string(path).unwrap(), file.bytes.len(), &file.etag);
        match (model.bare, file.large) {
            (true, _) => format!(r#"{{"rfilename":{path}}}"#),
            (_, false) => format!(r#"{{"rfilename":{path},"size":{size},"blobId":"{etag}"}}"#),
            (_, true) => format!(
                r#"{{"rfilename":{path},"size":{size},"blobId":"1","lfs":{{"sha256":"{etag}","size":{size}}}}}"#
            ),
        }
    });
    format!(r#"{{"id":"x","sha":"{}","siblings":[{}]}}"#, model.commit, files.collect::<Vec<_>>().join(","))
}

fn file(request: &Request, model: &Model, path: &str, place: SocketAddr) -> Reply {
    let path = path.replace("%20", " ");
    let Some(file) = model.files.get(&path) else { return refused(404, "EntryNotFound") };
    let reply = match file.large {
        false => part(request, &file.bytes).with("etag", format!("\"{}\"", file.etag)),
        true => Reply::new(302, "")
            .with("location", format!("http://{place}/{}?signature=secret", file.etag))
            .with("x-linked-etag", format!("\"{}\"", file.etag))
            .with("x-linked-size", file.bytes.len()),
    };
    reply.with("x-repo-commit", &model.commit)
}

/// The second host, which has files by their digests.
fn large(request: &Request, models: &BTreeMap<String, Model>) -> Reply {
    let name = request.path.trim_start_matches('/').split('?').next().unwrap_or_default();
    let mut files = models.values().flat_map(|model| model.files.values());
    match files.find(|file| file.large && file.etag == name) {
        Some(file) => part(request, &file.bytes).with("etag", "\"another-hosts-own\""),
        None => refused(404, ""),
    }
}

/// A file, or what follows the byte that was asked for.
pub(crate) fn part(request: &Request, bytes: &[u8]) -> Reply {
    let from = request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    match from.and_then(|from| from.parse::<usize>().ok()) {
        None => Reply::new(200, bytes),
        Some(from) if from >= bytes.len() => Reply::new(416, ""),
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[from..]).with("content-range", range)
        }
    }
}
