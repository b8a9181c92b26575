//! A client of a few lines, which does what it is told: also what no library would.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A response.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The head, in lower case.
    pub head: String,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// A test waits no longer than this for a server that says nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connects.
///
/// # Panics
/// If nobody listens.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Sends one request, with further lines of the head, and reads its response.
///
/// # Panics
/// If the server does not answer.
pub fn send(address: SocketAddr, line: &str, head: &[&str], body: &[u8]) -> Reply {
    let mut stream = begin(address, line, head, body);
    finish(&mut stream)
}

/// Sends one request.
///
/// # Panics
/// If nobody listens.
pub fn begin(address: SocketAddr, line: &str, head: &[&str], body: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    let own = head.iter().any(|line| line.to_ascii_lowercase().starts_with("host:"));
    let host = if own { String::new() } else { format!("host: {address}\r\n") };
    let more: String = head.iter().map(|line| format!("{line}\r\n")).collect();
    let text =
        format!("{line} HTTP/1.1\r\n{host}{more}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(text.as_bytes()).expect("the head is sent");
    // A server may refuse a request before it has read all of it.
    let _ = stream.write_all(body);
    stream
}

/// Reads a response to its end.
///
/// # Panics
/// If there is none.
pub fn finish(stream: &mut TcpStream) -> Reply {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = reader.read_line(&mut head).expect("a head");
        assert!(read > 0, "the server hung up after {head:?}");
    }
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    let head = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut size = String::new();
            reader.read_line(&mut size).expect("a chunk's size");
            let size = usize::from_str_radix(size.trim(), 16).expect("a size");
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk).expect("a chunk");
            if size == 0 {
                break;
            }
            body.extend_from_slice(&chunk[..size]);
        }
    } else {
        reader.read_to_end(&mut body).expect("a body");
    }
    Reply { status, head, body }
}

/// Posts a JSON value.
///
/// # Panics
/// As [`send`].
pub fn post(address: SocketAddr, path: &str, body: &Value) -> Reply {
    let line = format!("POST {path}");
    send(address, &line, &["content-type: application/json"], body.to_string().as_bytes())
}

/// Gets a path.
///
/// # Panics
/// As [`send`].
pub fn get(address: SocketAddr, path: &str) -> Reply {
    send(address, &format!("GET {path}"), &[], b"")
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A line of the head.
    pub fn header(&self, name: &str) -> Option<&str> {
        let start = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(start.as_str()))
    }

    /// The events of a stream: names and data.
    ///
    /// # Panics
    /// If it is no stream.
    pub fn events(&self) -> Vec<(Option<String>, String)> {
        assert!(
            self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")),
            "{}",
            self.head
        );
        let text = String::from_utf8(self.body.clone()).expect("UTF-8");
        let event = |block: &str| {
            let field =
                |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            Some((field("event: "), field("data: ")?))
        };
        text.split("\n\n").filter_map(event).collect()
    }

    /// The chunks of a stream that ended well.
    ///
    /// # Panics
    /// If it did not.
    pub fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().map(|event| event.1).as_deref(), Some("[DONE]"), "{}", self.text());
        events.iter().map(|(_, data)| serde_json::from_str(data).expect("JSON")).collect()
    }

    /// The message of an error.
    ///
    /// # Panics
    /// If it is none, or has several lines.
    pub fn error(&self) -> String {
        let message = self.json()["error"]["message"].as_str().expect("an error").to_owned();
        assert!(!message.contains('\n') && !message.is_empty(), "{message}");
        message
    }
}
