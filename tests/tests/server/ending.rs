//! A server that is told to end lets texts go on, and takes no more; its health is the truth.

use offramp_tests::http::{begin, connect, finish, get, post};
use offramp_tests::server::{Server, options};
use serde_json::{Value, json};
use std::io::Read;

fn long() -> Value {
    json!({ "prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": true, "temperature": 0, "stream": true })
}

#[test]
fn what_streams_ends_whole_and_new_work_is_refused() {
    let server = Server::start(None, options());
    let expected = post(server.address, "/v1/completions", &long()).chunks().len();
    let body = long().to_string();
    let mut stream = begin(server.address, "POST /v1/completions", &[], body.as_bytes());
    let mut first = [0; 15];
    stream.read_exact(&mut first).unwrap();
    server.tell_to_end();
    let refused = loop {
        let reply = post(server.address, "/v1/completions", &json!({ "prompt": "a", "max_tokens": 1 }));
        if reply.status != 200 {
            break reply;
        }
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.error().contains("ending"));
    assert_eq!(get(server.address, "/health/ready").status, 503);
    assert_eq!(get(server.address, "/health/live").status, 200);
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    let text = String::from_utf8(rest).unwrap();
    assert_eq!(text.matches("data: ").count(), expected + 1, "every chunk came, and [DONE]");
    assert!(text.contains("[DONE]"));
}

#[test]
fn health_answers_while_a_prompt_is_read() {
    let server = Server::start(None, options());
    let prompts = vec![vec![7; 500]; 8];
    let body = json!({ "prompt": prompts, "max_tokens": 1, "echo": true, "logprobs": 20 }).to_string();
    let mut working = begin(server.address, "POST /v1/completions", &[], body.as_bytes());
    let reply = std::thread::spawn(move || finish(&mut working));
    let mut answers = 0;
    while !reply.is_finished() {
        assert_eq!(get(server.address, "/health/live").status, 200);
        assert_eq!(get(server.address, "/health/ready").status, 200);
        answers += 1;
    }
    assert_eq!(reply.join().unwrap().status, 200);
    assert!(answers > 1, "it answered meanwhile");
}

#[test]
fn a_connection_without_a_request_does_not_keep_the_server() {
    let server = Server::start(None, options());
    let idle: Vec<_> = (0..20).map(|_| connect(server.address)).collect();
    assert_eq!(get(server.address, "/health").status, 200);
    drop(server);
    drop(idle);
}
