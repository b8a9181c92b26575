//! The protocol on a made-up model. `tests/` compares its numbers with PyTorch's.

use super::*;
use offramp_model::Config;
use std::path::Path;

const LAYERS: usize = 3;
const VOCAB: usize = 13;
/// The model's whole context.
const LIMIT: usize = 10;

fn model() -> Llama {
    let json = format!(
        r#"{{"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": {LAYERS},
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 4, "vocab_size": {VOCAB},
            "max_position_embeddings": {LIMIT}, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}}"#
    );
    let mut state = 7u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let config = Config::from_json(&json, Path::new("config.json")).unwrap();
    Llama::from_weights(config, |spec| Ok((0..spec.len()).map(|_| next()).collect())).unwrap()
}

fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| (i * i * 5 + i) % VOCAB as u32).collect()
}

fn measure(tokens: &[u32], options: &PerplexityOptions) -> Result<Vec<ExitScore>> {
    let stream = TokenStream::from_tokens(tokens.to_vec(), VOCAB).unwrap();
    // Token 0 is the end of text: it costs nats and counts no bytes.
    perplexity(&model(), &stream, &|_, token| if token == 0 { 0 } else { 2 }, options, &mut |_, _| ())
}

fn in_context(context: usize) -> PerplexityOptions {
    PerplexityOptions { context: Some(context), ..Default::default() }
}

/// Nats of `tokens[at]` after the tokens from `start` on, at the exit `exit`: the definition.
fn nats(model: &Llama, tokens: &[u32], start: usize, at: usize, exit: usize) -> f64 {
    let (mut hidden, mut cache, mut logits) = (model.new_hidden(), model.new_cache(LIMIT), Vec::new());
    model.embed(&tokens[start..at], &mut hidden).unwrap();
    model
        .forward(
            0..exit,
            &mut hidden,
            &mut offramp_model::Batch::one(&mut cache),
            &mut offramp_model::Scratch::new(),
        )
        .unwrap();
    model.head(&hidden, at - start - 1..at - start, &mut logits, &mut offramp_model::Scratch::new());
    let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    total.ln() - f64::from(logits[tokens[at] as usize])
}

#[test]
fn every_token_but_the_first_costs_what_it_costs_in_its_window() {
    let (model, tokens) = (model(), tokens(23)); // windows of 7, 7, 7 and 1 labels
    let bytes = 2 * tokens[1..].iter().filter(|&&token| token != 0).count() as u64;
    assert!(tokens[1..].contains(&0), "an end of text is among them");
    let scores = measure(&tokens, &in_context(7)).unwrap();
    assert_eq!(scores.iter().map(|score| score.exit_layer).collect::<Vec<_>>(), [1, 2, 3]);
    for score in scores {
        let all = (1..tokens.len()).map(|at| nats(&model, &tokens, (at - 1) / 7 * 7, at, score.exit_layer));
        let expected: f64 = all.sum();
        assert_eq!((score.tokens, score.bytes), (22, bytes));
        assert!((score.nats_per_token - expected / 22.0).abs() < 1e-6, "{score:?}");
        assert!((score.perplexity - (expected / 22.0).exp()).abs() < 1e-4, "{score:?}");
        let bits = expected / std::f64::consts::LN_2 / bytes as f64;
        assert!((score.bits_per_byte - bits).abs() < 1e-6, "{score:?}");
    }
}

#[test]
fn exits_come_as_asked_and_the_full_model_agrees_with_itself() {
    let tokens = tokens(23);
    let all = measure(&tokens, &in_context(7)).unwrap();
    assert_eq!(all[LAYERS - 1].agreement, 1.0);
    assert!(all[0].agreement < 1.0, "{all:?}");
    let some = measure(&tokens, &PerplexityOptions { exits: vec![2, 1], ..in_context(7) }).unwrap();
    assert_eq!(some.iter().map(|score| score.exit_layer).collect::<Vec<_>>(), [2, 1]);
    for score in some {
        let alone = all[score.exit_layer - 1];
        assert_eq!((score.nats_per_token, score.agreement), (alone.nats_per_token, alone.agreement));
    }
}

#[test]
fn at_most_so_many_tokens_are_whole_windows() {
    let tokens = tokens(23);
    for (most, scored) in [(1, 7), (7, 7), (8, 14), (22, 22), (1000, 22)] {
        let options = PerplexityOptions { max_tokens: Some(most), ..in_context(7) };
        assert_eq!(measure(&tokens, &options).unwrap()[0].tokens, scored, "{most}");
    }
}

#[test]
fn the_context_is_the_models_where_that_is_shorter() {
    let tokens = tokens(23);
    let [left_out, asked] = [PerplexityOptions::default(), in_context(LIMIT)].map(|options| {
        let scores = measure(&tokens, &options).unwrap();
        scores.iter().map(|score| score.nats_per_token).collect::<Vec<_>>()
    });
    assert_eq!(left_out, asked);
}

#[test]
fn what_measures_nothing_is_one_clear_line() {
    let exit = |exit| PerplexityOptions { exits: vec![exit], ..Default::default() };
    for (len, options, expected) in [
        (23, exit(0), "1 to 3"),
        (23, exit(LAYERS + 1), "1 to 3"),
        (23, in_context(0), "a context of 0 tokens: the model has 1 to 10"),
        (23, in_context(LIMIT + 1), "a context of 11 tokens"),
        (1, in_context(7), "2"),
    ] {
        let message = measure(&tokens(len), &options).unwrap_err().to_string();
        assert!(!message.contains('\n') && message.contains(expected), "{message:?}, not {expected:?}");
    }
    let stream = TokenStream::from_tokens(vec![1, 2, 3], VOCAB + 1).unwrap();
    let found = perplexity(&model(), &stream, &|_, _| 1, &PerplexityOptions::default(), &mut |_, _| ());
    assert!(matches!(found, Err(Error::Vocabulary { data: 14, model: VOCAB })), "{found:?}");
}
