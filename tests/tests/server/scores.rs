//! What `lm-eval` reads: the log-probabilities of an echoed prompt are those of our own evaluation.

use offramp_engine::{Session, Workspace, argmax, score};
use offramp_pipeline::Pipeline;
use offramp_tests::http::post;
use offramp_tests::server::{Server, options, pipeline};
use serde_json::json;

const STORY: &str = "Once upon a time there was a girl called Lily. She liked to play outside in the park. One day \
    she saw a big, red ball. She wanted to play with it, but it was too high in the tree. 🎈 She asked her mom for \
    help, and together they shook the tree until the ball fell down. Lily was very happy.";

/// Nats and the most likely tokens at every position but the first, as evaluation computes them.
fn scores(pipeline: &Pipeline, ids: &[u32], exit_layer: usize) -> Vec<(f64, bool)> {
    let mut session = Session::new(pipeline.model(), ids.len()).unwrap();
    session.set_exit_layer(exit_layer).unwrap();
    let mut workspace = Workspace::new();
    let mut logits = session.feed_each(&ids[..ids.len() - 1], &mut workspace).unwrap().to_vec();
    let vocab = logits.len() / (ids.len() - 1);
    let greedy: Vec<u32> = logits.chunks_exact(vocab).map(argmax).collect();
    let found = score(&mut logits, &ids[1..]);
    found.iter().zip(greedy).zip(&ids[1..]).map(|((score, best), id)| (score.nats, best == *id)).collect()
}

#[test]
fn echoed_logprobs_are_those_of_our_evaluation_at_any_exit() {
    let (pipeline, server) = (pipeline(), Server::start(None, options()));
    let ids = pipeline.encode(STORY, Default::default()).unwrap();
    assert!(ids.len() > 64, "several calls of the head");
    for exit_layer in [24, 12] {
        let model = format!("tinystories-24@{exit_layer}");
        let body = json!({ "model": model, "prompt": ids, "echo": true, "logprobs": 1, "max_tokens": 1,
            "temperature": 0, "seed": 1234 });
        // Twice: the second time, the prompt is in the cache.
        for _ in 0..2 {
            let choice = post(server.address, "/v1/completions", &body).json()["choices"][0].clone();
            let logprobs = &choice["logprobs"];
            let told: Vec<Option<f64>> = logprobs["token_logprobs"]
                .as_array()
                .unwrap()
                .iter()
                .map(serde_json::Value::as_f64)
                .collect();
            assert_eq!(told.len(), ids.len() + 1);
            assert_eq!(told[0], None);
            let tops = logprobs["top_logprobs"].as_array().unwrap();
            for (position, (nats, greedy)) in scores(&pipeline, &ids, exit_layer).into_iter().enumerate() {
                let logprob = told[position + 1].unwrap();
                assert_eq!(logprob, -nats, "position {}", position + 1);
                let top = tops[position + 1].as_object().unwrap();
                let best =
                    top.values().filter_map(serde_json::Value::as_f64).fold(f64::NEG_INFINITY, f64::max);
                assert_eq!(logprob == best, greedy, "greediness at position {}", position + 1);
            }
            let text = choice["text"].as_str().unwrap();
            assert!(text.starts_with(STORY));
            let offsets = logprobs["text_offset"].as_array().unwrap();
            let names = logprobs["tokens"].as_array().unwrap();
            let characters: Vec<char> = text.chars().collect();
            for (offset, name) in offsets.iter().zip(names) {
                let (offset, name) = (offset.as_u64().unwrap() as usize, name.as_str().unwrap());
                if !name.starts_with("bytes:") {
                    let there: String = characters[offset..].iter().take(name.chars().count()).collect();
                    assert_eq!(there, name, "the token stands at its offset");
                }
            }
        }
    }
}

#[test]
fn a_prompt_can_be_scored_without_new_tokens() {
    let (pipeline, server) = (pipeline(), Server::start(None, options()));
    let ids = pipeline.encode(STORY, Default::default()).unwrap();
    let body = json!({ "prompt": ids, "echo": true, "logprobs": 0, "max_tokens": 0 });
    let reply = post(server.address, "/v1/completions", &body).json();
    let told = reply["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap().clone();
    let sum: f64 = told.iter().filter_map(serde_json::Value::as_f64).sum();
    let expected: f64 = scores(&pipeline, &ids, 24).iter().map(|score| -score.0).sum();
    assert_eq!((told.len(), sum), (ids.len(), expected));
    assert_eq!(reply["choices"][0]["text"], STORY);
    assert_eq!(reply["usage"]["completion_tokens"], 0);
}
