//! A client that leaves frees its place, in the queue, in a prompt and in its text, and nobody else's text
//! changes.

use offramp_tests::http::{begin, post};
use offramp_tests::server::{Server, options};
use serde_json::{Value, json};
use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Waits until all who left are gone.
fn until_nobody_is_there(server: &Server) {
    for _ in 0..2000 {
        let left = server.metric("offramp_places_left") == server.metric("offramp_places");
        if left && server.metric("offramp_texts_running") == 0.0 {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!(
        "{} places are still taken",
        server.metric("offramp_places") - server.metric("offramp_places_left")
    );
}

fn long(stream: bool, seed: usize) -> Value {
    let prompt = "Once upon a time there was a fox. ".repeat(1 + seed % 20);
    let speculate = ["off", "auto", "6:3"][seed % 3];
    json!({ "prompt": prompt, "max_tokens": 300, "ignore_eos": true, "stream": stream, "seed": seed,
        "speculate": speculate })
}

#[test]
fn whoever_leaves_is_forgotten_and_nobody_else_notices() {
    const LEAVING: usize = 120;
    let server = Server::start(None, options());
    let steady = json!({ "prompt": "Once upon a time", "max_tokens": 100, "temperature": 0.9, "seed": 3, "logprobs": 1 });
    let text = || post(server.address, "/v1/completions", &steady).json()["choices"].clone();
    let expected = text();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for client in 0..3 {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                for number in (client..LEAVING).step_by(3) {
                    let body = long(number % 2 == 0, number).to_string();
                    let mut stream = begin(server.address, "POST /v1/completions", &[], body.as_bytes());
                    // Some leave at once, some after a while, some in the middle of their text.
                    thread::sleep(Duration::from_millis((number * 7 % 40) as u64));
                    if number % 3 == 0 {
                        let _ = stream.read(&mut [0; 64]);
                    }
                }
                done.store(true, Ordering::Release);
            });
        }
        while !done.load(Ordering::Acquire) {
            assert_eq!(text(), expected);
        }
    });
    until_nobody_is_there(&server);
    assert_eq!(text(), expected);
}

#[test]
fn one_who_leaves_the_queue_takes_nobody_with_him() {
    let few = offramp_serve::ServeOptions { max_texts: 1, queue: 8, ..options() };
    let server = Server::start(None, few);
    let body = |seed: usize| long(false, seed).to_string();
    let first = begin(server.address, "POST /v1/completions", &[], body(0).as_bytes());
    let waiting: Vec<_> = (1..4)
        .map(|seed| begin(server.address, "POST /v1/completions", &[], body(seed).as_bytes()))
        .collect();
    drop(waiting);
    let short = json!({ "prompt": "Once", "max_tokens": 5, "temperature": 0 });
    let reply = post(server.address, "/v1/completions", &short);
    assert_eq!(reply.status, 200);
    drop(first);
    until_nobody_is_there(&server);
}
