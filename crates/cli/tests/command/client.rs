//! A client that says how a reply ended, and in how many pieces it came.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// The key that every request bears.
pub(crate) const KEY: &str = "a-key";

/// A test waits no longer than this for somebody who says nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// The status code; 0 where no head came.
    pub(crate) status: u16,
    pub(crate) body: String,
    /// Whether the body came to the end that its head announced.
    pub(crate) whole: bool,
    /// How often there was something to read.
    pub(crate) pieces: usize,
}

/// Posts a body, or gets a path.
pub(crate) fn ask(address: SocketAddr, path: &str, body: Option<&str>) -> Reply {
    finish(begin(address, path, body))
}

/// Sends a request; the reply is read later, or never.
pub(crate) fn begin(address: SocketAddr, path: &str, body: Option<&str>) -> TcpStream {
    begin_with(address, path, body, &format!("authorization: Bearer {KEY}\r\n"))
}

/// The same with other lines of the head.
pub(crate) fn begin_with(address: SocketAddr, path: &str, body: Option<&str>, lines: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let method = if body.is_some() { "POST" } else { "GET" };
    let (body, common) =
        (body.unwrap_or_default(), "connection: close\r\ncontent-type: application/json\r\n");
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{common}{lines}content-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // Whoever refuses a request need not read all of it.
    let _ = stream.write_all(body.as_bytes());
    stream
}

/// Reads to the end, whatever the end is.
pub(crate) fn finish(mut stream: TcpStream) -> Reply {
    let (mut bytes, mut pieces, mut piece) = (Vec::new(), 0, vec![0; 1 << 16]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
        pieces += 1;
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let Some((head, rest)) = text.split_once("\r\n\r\n") else {
        return Reply { status: 0, body: text, whole: false, pieces };
    };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    let (body, whole) = match length {
        Some(length) => (rest.to_owned(), rest.len() == length),
        None => joined(rest),
    };
    Reply { status, body, whole, pieces }
}

/// The chunks of a body, and whether the last one came.
fn joined(mut rest: &str) -> (String, bool) {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size, 16) else { break };
        if size == 0 {
            return (body, true);
        }
        let Some(chunk) = after.get(..size) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    (body, false)
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The bytes that say what the texts are: all else has times and names of its own.
    pub(crate) fn choices(&self) -> &str {
        let after = self.body.split_once("\"choices\":").map(|(_, after)| after);
        let choices = after.and_then(|after| after.rsplit_once(",\"usage\":"));
        choices.unwrap_or_else(|| panic!("no choices: {}", self.body)).0
    }

    /// The texts of a completion that came whole, or of a stream that came to its end.
    pub(crate) fn texts(&self) -> Vec<String> {
        assert!(self.status == 200 && self.whole, "{}: {}", self.status, self.body);
        let chunks: Vec<Value> = if self.body.starts_with('{') {
            vec![self.json()]
        } else {
            assert!(self.is_done(), "{}", self.body);
            let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
            data.filter(|data| *data != "[DONE]").map(|data| serde_json::from_str(data).unwrap()).collect()
        };
        let mut texts = Vec::new();
        for choice in chunks.iter().flat_map(|chunk| chunk["choices"].as_array().unwrap()) {
            let index = choice["index"].as_u64().unwrap() as usize;
            texts.resize(texts.len().max(index + 1), String::new());
            texts[index] += choice["text"].as_str().unwrap();
        }
        texts
    }

    /// Whether a stream says that it is at its end.
    pub(crate) fn is_done(&self) -> bool {
        self.body.ends_with("data: [DONE]\n\n")
    }
}
