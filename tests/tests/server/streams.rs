//! Streams concatenate to the whole: no half character, no part of a stop string, no lost end.

use offramp_pipeline::PromptOptions;
use offramp_tests::http::post;
use offramp_tests::server::{Server, options, pipeline};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

/// The text of a stream, and its last reason.
fn streamed(server: &Server, body: &Value) -> (String, Value) {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let reply = post(server.address, "/v1/completions", &body);
    let (mut text, mut reason) = (String::new(), Value::Null);
    for chunk in reply.chunks() {
        if let Some(choice) = chunk["choices"].get(0) {
            text.push_str(choice["text"].as_str().unwrap());
            reason = choice["finish_reason"].clone();
        }
    }
    (text, reason)
}

#[test]
fn any_stream_is_the_whole_text() {
    let server = Server::start(None, options());
    // Tokens of single bytes are pushed by a bias, so that emoji and broken characters come about.
    let bytes: Vec<u32> = {
        let pipeline = pipeline();
        let ids = ["🐉", "狐狸", "é", "☃\u{fe0f}"].iter().flat_map(|text| {
            pipeline.encode(text, PromptOptions { add_special_tokens: false, plain_text: false }).unwrap()
        });
        ids.collect()
    };
    let stops = ["the", " a", "\n", "🐉", ".", "he said", "\u{fffd}"];
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, ..Config::default() });
    let strategy = (any::<u32>(), 0.0f32..12.0, prop::sample::subsequence(stops.to_vec(), 0..3), 1usize..80);
    let check = |(seed, bias, stop, max_tokens): (u32, f32, Vec<&str>, usize)| {
        let bias: serde_json::Map<String, Value> =
            bytes.iter().map(|id| (id.to_string(), json!(bias))).collect();
        let body = json!({ "prompt": "The dragon 🐉 and the fox 狐狸", "temperature": 1.2, "seed": seed,
            "logit_bias": bias, "stop": stop, "max_tokens": max_tokens, "ignore_eos": true });
        let whole = post(server.address, "/v1/completions", &body).json()["choices"][0].clone();
        let (text, reason) = streamed(&server, &body);
        prop_assert_eq!(whole["text"].as_str().unwrap(), text.as_str());
        prop_assert_eq!(&whole["finish_reason"], &reason);
        prop_assert!(stop.iter().all(|stop| !text.contains(stop)), "{:?} in {:?}", stop, text);
        Ok(())
    };
    runner.run(&strategy, check).unwrap();
}

#[test]
fn a_stream_ends_with_its_usage_and_says_it_on_the_way_if_asked() {
    let server = Server::start(None, options());
    let body = json!({ "prompt": "Once", "max_tokens": 12, "temperature": 0, "ignore_eos": true, "stream": true,
        "stream_options": { "include_usage": true, "continuous_usage_stats": true } });
    let chunks = post(server.address, "/v1/completions", &body).chunks();
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 12);
    assert!(last["timings"]["predicted_n"] == 12);
    let counts: Vec<u64> =
        others.iter().map(|chunk| chunk["usage"]["completion_tokens"].as_u64().unwrap()).collect();
    assert!(counts.is_sorted() && counts.first() < counts.last(), "{counts:?}");
    let plain = json!({ "prompt": "Once", "max_tokens": 3, "stream": true });
    let chunks = post(server.address, "/v1/completions", &plain).chunks();
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk.get("usage").is_none() && !chunk["choices"].as_array().unwrap().is_empty())
    );
}

#[test]
fn depths_in_a_stream_come_with_their_text() {
    let server = Server::start(None, options());
    let body = json!({ "prompt": "Once upon a time", "max_tokens": 30, "temperature": 0, "stream": true,
        "speculate": "6:4", "return_depths": true });
    let chunks = post(server.address, "/v1/completions", &body).chunks();
    let mut whole = String::new();
    let mut tokens = String::new();
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        whole.push_str(choice["text"].as_str().unwrap());
        for depth in choice["depths"].as_array().unwrap() {
            tokens.push_str(depth["token"].as_str().unwrap());
        }
        assert_eq!(tokens, whole, "after every chunk");
    }
    assert!(whole.len() > 30);
}
