//! The measures of `offramp eval` against the same measures taken from PyTorch's logits.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_eval::{ExitScore, PerplexityOptions, perplexity};
use offramp_model::{Format, Formats, Llama};
use offramp_tests::golden::{Fixture, assert_near, ids, number};
use offramp_text::TokenStream;
use serde_json::Value;

/// What is promised is 1e-4 relative; a mean over 202 tokens of f32 logits is far closer.
const TOLERANCE: f64 = 1e-6;

/// Measures the fixture's stream with its model, in its context.
fn measure(expected: &Value, options: PerplexityOptions) -> Vec<ExitScore> {
    let model =
        Llama::load(Fixture::new(expected["model"].as_str().unwrap()).folder(), &Formats::all(Format::F32))
            .unwrap();
    let stream = TokenStream::from_tokens(ids(&expected["tokens"]), model.config().vocab_size).unwrap();
    let lengths = ids(&expected["byte_lengths"]);
    let context = Some(number(&expected["context"]) as usize);
    let byte_length = |_: u32, id: u32| lengths[id as usize] as usize;
    let options = PerplexityOptions { context, ..options };
    perplexity(&model, &stream, &byte_length, &options, &mut |_, _| ()).unwrap()
}

fn assert_score(found: &ExitScore, expected: &Value, exit: &Value) {
    let what = |key: &str| format!("{key} at exit {}", exit["exit_layer"]);
    assert_eq!(found.exit_layer as f64, number(&exit["exit_layer"]));
    assert_eq!(found.tokens as f64, number(&expected["tokens_scored"]));
    assert_eq!(found.bytes as f64, number(&expected["bytes_scored"]));
    let nats = found.nats_per_token * found.tokens as f64;
    assert_near(&what("nats"), nats, number(&exit["nats"]), TOLERANCE);
    assert_near(&what("nats_per_token"), found.nats_per_token, number(&exit["nats_per_token"]), TOLERANCE);
    assert_near(&what("bits_per_byte"), found.bits_per_byte, number(&exit["bits_per_byte"]), TOLERANCE);
    // The exponential multiplies a relative difference by the nats per token, about 5.
    assert_near(&what("perplexity"), found.perplexity, number(&exit["perplexity"]), 6.0 * TOLERANCE);
    // A count: the fixture has no two logits within 1e-4 of the first place.
    assert_near(&what("agreement"), found.agreement, number(&exit["agreement"]), 1e-12);
}

#[test]
fn every_exit_is_measured_as_from_pytorchs_logits() {
    let expected = Fixture::new("perplexity").json();
    let exits = expected["exits"].as_array().unwrap();
    let scores = measure(&expected, PerplexityOptions::default());
    assert_eq!(scores.len(), exits.len());
    for (found, exit) in scores.iter().zip(exits) {
        assert_score(found, &expected, exit);
    }
}

#[test]
fn an_exit_measured_alone_gives_the_same() {
    let expected = Fixture::new("perplexity").json();
    for exit in expected["exits"].as_array().unwrap() {
        let exits = vec![number(&exit["exit_layer"]) as usize];
        let scores = measure(&expected, PerplexityOptions { exits, ..PerplexityOptions::default() });
        assert_eq!(scores.len(), 1);
        assert_score(&scores[0], &expected, exit);
    }
}
