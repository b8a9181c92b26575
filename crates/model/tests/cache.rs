//! The cache in both formats, over several of its blocks: any cut of the tokens, any threads, and what was
//! forgotten leave no trace.

use offramp_kernels::attend::BLOCK;
use offramp_kernels::pool;
use offramp_model::{Batch, CacheFormat, Config, Format, Formats, KvCache, Llama, Scratch};
use std::path::Path;

/// Attention of so many tokens is shared among threads.
const TOKENS: usize = 4 * BLOCK + 13;

fn model(kv_cache: CacheFormat) -> Llama {
    let config = r#"{
        "model_type": "llama", "hidden_size": 96, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 20, "vocab_size": 31,
        "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
    }"#;
    let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
    let formats = Formats { layers: Some(Format::F32), kv_cache, ..Formats::default() };
    Llama::random(config, 5, &formats).expect("a small model")
}

fn tokens() -> Vec<u32> {
    (0..TOKENS as u32).map(|i| (i * i + 7 * i) % 31).collect()
}

/// The logits after all `tokens`, taken in pieces.
fn logits(model: &Llama, tokens: &[u32], piece: usize, cache: &mut KvCache) -> Vec<f32> {
    let (mut hidden, mut logits, mut all) = (model.new_hidden(), Vec::new(), Vec::new());
    for tokens in tokens.chunks(piece) {
        model.embed(tokens, &mut hidden).expect("ids within the vocabulary");
        model
            .forward(0..2, &mut hidden, &mut Batch::one(cache), &mut Scratch::new())
            .expect("room in the cache");
        model.head(&hidden, 0..tokens.len(), &mut logits, &mut Scratch::new());
        all.extend_from_slice(&logits);
    }
    all
}

#[test]
fn any_cut_and_any_thread_give_the_same_bits() {
    pool::set_threads(3).expect("the first call of this process, or the same number");
    for format in CacheFormat::ALL {
        let (model, tokens) = (model(format), tokens());
        let whole = logits(&model, &tokens, TOKENS, &mut model.new_cache(TOKENS));
        assert!(whole.iter().all(|x| x.is_finite()));
        for piece in [1, 5, 31, 32, 33, 100] {
            let pieces = logits(&model, &tokens, piece, &mut model.new_cache(TOKENS));
            assert_eq!(pieces, whole, "{format}, {piece} tokens at a time");
        }
    }
}

#[test]
fn what_was_forgotten_leaves_no_trace() {
    pool::set_threads(3).expect("the first call of this process, or the same number");
    for format in CacheFormat::ALL {
        let (model, tokens) = (model(format), tokens());
        let whole = logits(&model, &tokens, TOKENS, &mut model.new_cache(TOKENS));
        let other: Vec<u32> = tokens.iter().map(|token| (token + 3) % 31).collect();
        for keep in [0, 1, 31, 32, 33, 70, TOKENS - 1] {
            let mut cache = model.new_cache(TOKENS);
            logits(&model, &tokens[..keep], TOKENS, &mut cache);
            logits(&model, &other[keep..], TOKENS, &mut cache);
            cache.truncate(keep);
            let again = logits(&model, &tokens[keep..], 9, &mut cache);
            assert_eq!(again, whole[keep * 31..], "{format}, {keep} kept");
        }
    }
}

#[test]
fn half_the_bytes_are_nearly_the_same() {
    pool::set_threads(3).expect("the first call of this process, or the same number");
    let [wide, narrow] = CacheFormat::ALL.map(|format| {
        let model = model(format);
        let mut cache = model.new_cache(TOKENS);
        let logits = logits(&model, &tokens(), TOKENS, &mut cache);
        assert_eq!(cache.format(), format);
        assert_eq!(cache.bytes(), TOKENS as u64 * model.kv_bytes_per_position(2));
        (logits, cache.bytes())
    });
    assert_eq!(wide.1, 2 * narrow.1);
    let difference = wide.0.iter().zip(&narrow.0).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    let largest = wide.0.iter().fold(0f32, |most, x| most.max(x.abs()));
    assert!(difference > 0.0 && difference < 2e-3 * largest, "{difference} of {largest}");
}
