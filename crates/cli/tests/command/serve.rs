//! The server as a process: it says where it listens, answers as `generate` does, and ends as it is told.

use crate::patience::{ended, signal, started, told, until};
use crate::place::Place;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Child;

/// Starts it, and returns its address.
fn serve(place: &Place, more: &[&str]) -> (Child, SocketAddr) {
    let arguments = [&["serve", "run", "--port", "0"], more].concat();
    let mut child = started(place, "serve", &arguments);
    until(&mut child, || told(place, "serve.err").contains("listening on http://"));
    let said = told(place, "serve.err");
    let address = said.split("http://").nth(1).unwrap().trim();
    (child, address.parse().unwrap())
}

/// Asks for a completion; the rest comes as it is read.
fn ask(address: SocketAddr, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    let length = body.len();
    let head = format!("POST /v1/completions HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n");
    stream.write_all(format!("{head}content-length: {length}\r\n\r\n{body}").as_bytes()).unwrap();
    stream
}

fn whole(mut stream: TcpStream) -> String {
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    reply
}

#[test]
fn an_answer_is_the_text_of_generate() {
    let place = Place::trained();
    let (mut child, address) = serve(&place, &[]);
    let common = ["generate", "run", "--prompt", "The heron", "--max-new-tokens", "20", "--logprobs", "2"];
    for (more, fields) in [
        (&["--temperature", "0"][..], r#""temperature": 0"#),
        (&["--seed", "7"], r#""seed": 7"#),
        (
            &["--seed", "8", "--min-p", "0.1", "--frequency-penalty", "0.5"],
            r#""seed": 8, "min_p": 0.1, "frequency_penalty": 0.5"#,
        ),
        (&["--temperature", "0", "--exit-layer", "2"], r#""temperature": 0, "exit_layer": 2"#),
    ] {
        let said = place.json(&[&common, more].concat());
        let body = format!(r#"{{"prompt": "The heron", "max_tokens": 20, "logprobs": 2, {fields}}}"#);
        let reply = whole(ask(address, &body));
        let reply: serde_json::Value = serde_json::from_str(reply.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let choice = &reply["choices"][0];
        let text = said["text"].as_str().unwrap();
        assert_eq!(choice["text"].as_str().unwrap(), text, "{fields}");
        let logprobs: Vec<_> =
            said["logprobs"].as_array().unwrap().iter().map(|one| &one["logprob"]).collect();
        let told: Vec<_> = choice["logprobs"]["token_logprobs"].as_array().unwrap().iter().collect();
        assert_eq!(told, logprobs, "{fields}");
    }
    signal(&child, "-TERM");
    assert_eq!(ended(&mut child).code(), Some(143));
    assert_eq!(told(&place, "serve.out"), "", "stdout has no result");
}

#[test]
fn told_to_end_it_lets_a_text_go_on_and_a_second_ctrl_c_does_not() {
    let place = Place::trained();
    let body = r#"{"prompt": "The", "max_tokens": 60, "n": 64, "ignore_eos": true, "stream": true}"#;
    let (mut child, address) = serve(&place, &["--max-texts", "2"]);
    let mut stream = ask(address, body);
    stream.read_exact(&mut [0; 12]).unwrap();
    signal(&child, "-INT");
    let rest = whole(stream);
    assert_eq!(rest.matches("\"finish_reason\":\"length\"").count(), 64, "every text came to its end");
    assert!(rest.contains("data: [DONE]"));
    assert_eq!(ended(&mut child).code(), Some(130));
    assert!(told(&place, "serve.err").contains("Ctrl-C again"));
}

#[test]
fn mistakes_are_one_line_that_helps() {
    let place = Place::trained();
    place.write("empty.txt", "\n");
    let (mut child, address) = serve(&place, &[]);
    let taken = address.port().to_string();
    for (more, says) in [
        (&["--port", &taken][..], "--port 0"),
        (&["--host", "nowhere.invalid"], "cannot listen"),
        (&["--memory", "10"], "at least"),
        (&["--memory", "much"], "512MiB"),
        (&["--context", "100000"], "at most"),
        (&["--max-texts", "0"], "1 on"),
        (&["--api-key-file", "empty.txt"], "holds no key"),
        (&["--api-key-file", "none.txt"], "none.txt"),
        (&["--api-key", ""], "empty"),
        (&["--speculate", "often"], "6:4"),
    ] {
        let ran = place.run(&[&["serve", "run"], more].concat());
        assert_eq!(ran.code, 2, "{more:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(says), "{more:?}: {}", ran.stderr);
    }
    signal(&child, "-TERM");
    ended(&mut child);
}
