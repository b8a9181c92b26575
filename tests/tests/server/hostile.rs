//! Clients that mean ill, or are broken: each is told so or dropped, and nobody else notices.

use offramp_tests::http::{connect, get, post, send};
use offramp_tests::server::{Server, options};
use serde_json::json;
use std::io::{Read, Write};

#[test]
fn broken_bodies_are_refused_in_one_line() {
    let server = Server::start(None, options());
    let deep = format!("{{\"prompt\": {}", "[".repeat(200_000));
    let deep_schema = {
        let mut schema = json!({ "type": "string" });
        for _ in 0..60 {
            schema = json!({ "type": "array", "items": schema });
        }
        schema
    };
    let bodies: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        b"[1, 2]".to_vec(),
        b"{\"prompt\": \"a\"} {}".to_vec(),
        b"{\"prompt\": \"\xff\xfe\"}".to_vec(),
        b"{\"prompt\": \"\\ud800\"}".to_vec(),
        b"{\"prompt\": \"a\", \"prompt\": \"b\"}".to_vec(),
        deep.into_bytes(),
        vec![b'a'; 1 << 20],
    ];
    for path in
        ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/exits", "/tokenize", "/detokenize"]
    {
        for body in &bodies {
            let reply = send(server.address, &format!("POST {path}"), &[], body);
            assert_eq!(reply.status, 400, "{path}: {}", reply.text());
            reply.error();
        }
    }
    for number in ["\"temperature\": 1e999", "\"max_tokens\": 99999999999999999999999"] {
        let body = format!("{{\"prompt\": \"a\", {number}}}");
        let reply = send(server.address, "POST /v1/completions", &[], body.as_bytes());
        assert_eq!((reply.status, reply.error().is_empty()), (400, false), "{number}");
    }
    let asked = json!({ "prompt": "a", "max_tokens": 4, "response_format": { "type": "json_schema",
        "json_schema": { "name": "deep", "schema": deep_schema } } });
    assert!([200, 400].contains(&post(server.address, "/v1/completions", &asked).status));
    assert_eq!(get(server.address, "/health").status, 200);
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_is_read() {
    let server = Server::start(None, options());
    let mut stream = connect(server.address);
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: {}\r\ncontent-length: 99999999999\r\n\r\n",
        server.address
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 413");
}

#[test]
fn whoever_says_nothing_or_nonsense_disturbs_nobody() {
    let server = Server::start(None, options());
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 40, "temperature": 0 });
    let expected = post(server.address, "/v1/completions", &body).json()["choices"].clone();
    let mut held = Vec::new();
    for number in 0..300 {
        let mut stream = connect(server.address);
        let text: &[u8] = match number % 5 {
            0 => b"",
            1 => b"POST /v1/completions HTTP/1.1\r\nhost:",
            2 => b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"pro",
            3 => b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            _ => b"GET / HTTP/9.9\r\n\r\n",
        };
        let _ = stream.write_all(text);
        held.push(stream);
    }
    assert_eq!(post(server.address, "/v1/completions", &body).json()["choices"], expected);
    let endless = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(200_000));
    let mut stream = connect(server.address);
    let _ = stream.write_all(endless.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(post(server.address, "/v1/completions", &body).json()["choices"], expected);
}
