//! What cannot be done is refused in one line that names the field, before any work.

use offramp_tests::http::{get, post, send};
use offramp_tests::server::{Server, options};
use serde_json::{Value, json};

#[test]
fn what_is_out_of_range_is_a_400_that_names_the_field() {
    let server = Server::start(None, options());
    for (body, param, says) in [
        (json!({}), "", "prompt"),
        (json!({ "prompt": 3 }), "prompt", "expected a text"),
        (json!({ "prompt": [] }), "prompt", "at least one"),
        (json!({ "prompt": [[]] }), "prompt", "at least one"),
        (json!({ "prompt": [1, -2] }), "prompt", "whole numbers from 0"),
        (json!({ "prompt": [1, 9_999_999] }), "prompt", "9999999"),
        (json!({ "prompt": "a", "temperature": -1 }), "temperature", "0 (greedy) or more"),
        (json!({ "prompt": "a", "temperature": "hot" }), "temperature", "invalid type"),
        (json!({ "prompt": "a", "top_p": 0 }), "top_p", "above 0"),
        (json!({ "prompt": "a", "top_k": -2 }), "top_k", "1 or more"),
        (json!({ "prompt": "a", "min_p": 2 }), "min_p", "between 0 and 1"),
        (json!({ "prompt": "a", "presence_penalty": 3 }), "presence_penalty", "between -2 and 2"),
        (json!({ "prompt": "a", "logit_bias": { "x": 1 } }), "logit_bias", "no token id"),
        (json!({ "prompt": "a", "logit_bias": { "1": 500 } }), "logit_bias", "between -100 and 100"),
        (json!({ "prompt": "a", "logprobs": 21 }), "logprobs", "at most 20"),
        (json!({ "prompt": "a", "n": 0 }), "n", "at least 1"),
        (json!({ "prompt": "a", "n": 2, "best_of": 3 }), "n", "best_of"),
        (json!({ "prompt": "a", "n": 1_000_000_000 }), "n", "at most"),
        (json!({ "prompt": "a", "max_tokens": -1 }), "max_tokens", "invalid value"),
        (json!({ "prompt": "a", "suffix": "b" }), "suffix", "not supported"),
        (json!({ "prompt": "a", "stop": "" }), "stop", "1 to 1024 bytes"),
        (json!({ "prompt": "a", "exit_layer": 0 }), "exit_layer", "1 to 24"),
        (json!({ "prompt": "a", "exit_layer": 25 }), "exit_layer", "1 to 24"),
        (
            json!({ "prompt": "a", "exit_layer": 6, "model": "tinystories-24@12" }),
            "exit_layer",
            "one of the two",
        ),
        (json!({ "prompt": "a", "speculate": "on" }), "speculate", "6:4"),
        (json!({ "prompt": "a", "speculate": "30:4" }), "speculate", "between 1 and"),
        (json!({ "prompt": "a", "agreement": 0.9 }), "agreement", "no text to calibrate"),
        (
            json!({ "prompt": "a", "stream_options": { "include_usage": 3 } }),
            "stream_options.include_usage",
            "boolean",
        ),
        (json!({ "prompt": "a", "response_format": { "type": "json_schema" } }), "response_format", "schema"),
        (
            json!({ "prompt": "a", "response_format": { "type": "json_schema", "json_schema": { "schema": {
            "type": "nonsense" } } } }),
            "response_format",
            "cannot be followed",
        ),
    ] {
        let reply = post(server.address, "/v1/completions", &body);
        let message = reply.error();
        assert_eq!(reply.status, 400, "{body}: {message}");
        assert_eq!(reply.json()["error"]["param"].as_str().unwrap_or_default(), param, "{body}: {message}");
        assert!(message.contains(says), "{body}: {message}");
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
    }
    let unknown = post(server.address, "/v1/completions", &json!({ "prompt": "a", "model": "gpt-4" }));
    assert_eq!((unknown.status, unknown.json()["error"]["code"].as_str()), (404, Some("model_not_found")));
    assert!(unknown.error().contains("tinystories-24@12"));
}

#[test]
fn a_prompt_that_does_not_fit_is_one_400_with_both_numbers() {
    let server = Server::start(None, offramp_serve::ServeOptions { context: Some(64), ..options() });
    let refused = |length: usize, stream: bool| {
        let body = json!({ "prompt": vec![5; length], "max_tokens": 4, "stream": stream });
        let reply = post(server.address, "/v1/completions", &body);
        assert_eq!(
            (reply.status, reply.json()["error"]["code"].as_str()),
            (400, Some("context_length_exceeded"))
        );
        let message = reply.error();
        assert!(message.contains(&length.to_string()) && message.contains("64"), "{message}");
    };
    for length in [64, 65, 500, 5000] {
        refused(length, false);
        refused(length, true);
    }
    assert_eq!(server.metric("offramp_prompt_tokens_total"), 0.0, "nothing was computed");
    let fits = json!({ "prompt": vec![5; 63], "max_tokens": 100, "ignore_eos": true });
    let choice = post(server.address, "/v1/completions", &fits).json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "length", "the text ends where the context does");
}

#[test]
fn fields_that_nobody_knows_are_named() {
    let server = Server::start(None, options());
    let body =
        json!({ "prompt": "a", "max_tokens": 1, "magic": 1, "user": "me", "stream_options": { "spell": 2 } });
    let reply = post(server.address, "/v1/completions", &body);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("x-offramp-ignored"), Some("magic, stream_options.spell"));
    assert!(reply.header("x-request-id").is_some());
    let known =
        post(server.address, "/v1/completions", &json!({ "prompt": "a", "max_tokens": 1, "user": "me" }));
    assert_eq!(known.header("x-offramp-ignored"), None);
}

#[test]
fn other_paths_and_methods_are_told_where_to_look() {
    let server = Server::start(None, options());
    let nothing = get(server.address, "/v2/completions");
    assert_eq!(nothing.status, 404);
    assert!(nothing.error().contains("/openapi.json"));
    let method = get(server.address, "/v1/completions");
    assert_eq!(method.status, 405);
    assert!(method.error().contains("/openapi.json"));
    assert_eq!(get(server.address, "/page/../Cargo.toml").status, 404);
    let paths = get(server.address, "/openapi.json").json()["paths"].as_object().unwrap().len();
    assert!(paths >= 13, "{paths}");
}

#[test]
fn more_than_has_place_is_a_429_that_says_when() {
    let server = Server::start(None, offramp_serve::ServeOptions { max_texts: 1, queue: 1, ..options() });
    let body = json!({ "prompt": "Once", "max_tokens": 500, "ignore_eos": true, "n": 2 }).to_string();
    let both = offramp_tests::http::begin(server.address, "POST /v1/completions", &[], body.as_bytes());
    let taken = (0..10_000).any(|_| server.metric("offramp_places_left") == 0.0);
    assert!(taken, "one text runs and one waits");
    let refused = send(server.address, "POST /v1/completions", &[], body.as_bytes());
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()));
    assert!(refused.error().contains("try again"));
    drop(both);
}

#[test]
fn tokens_and_text_are_each_others() {
    let server = Server::start(None, options());
    let text = "Tom saw a 🐉.";
    let tokens =
        post(server.address, "/tokenize", &json!({ "prompt": text, "return_token_strs": true })).json();
    let same = post(server.address, "/tokenize", &json!({ "content": text })).json();
    assert_eq!(tokens["tokens"], same["tokens"], "vLLM's name and llama.cpp's");
    assert_eq!(tokens["count"].as_u64(), Some(tokens["tokens"].as_array().unwrap().len() as u64));
    let back = post(server.address, "/detokenize", &json!({ "tokens": tokens["tokens"] })).json();
    assert_eq!((&back["prompt"], &back["content"]), (&json!(text), &json!(text)));
    let refused = post(server.address, "/detokenize", &json!({ "tokens": [9_999_999] }));
    assert_eq!(refused.status, 400);
    let info = get(server.address, "/tokenizer_info").json();
    assert_eq!(info["model_max_length"], 512);
    assert_eq!(info["eos_token"], "<|endoftext|>");
    let models: Value = get(server.address, "/v1/models").json();
    assert_eq!(models["data"][0]["root"], "models/tinystories-24");
    assert_eq!(get(server.address, "/v1/models/tinystories-24@6").json()["id"], "tinystories-24@6");
}
