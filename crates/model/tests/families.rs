//! Families of models: a text's bits whatever the cut, their folders in every format, and what random ones
//! hold.

use offramp_model::{
    Batch, Config, Format, Formats, Llama, Scratch, TensorKind, TensorSpec, Weights, checkpoint,
};
use serde_json::{Value, json};
use std::path::Path;

/// Families with everything that sets them apart.
fn configs() -> Vec<(&'static str, Config)> {
    let sliding = json!({ "use_sliding_window": true, "sliding_window": 5, "max_window_layers": 1 });
    let yarn = json!({ "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8 });
    let all = [
        ("mistral", "mistral", json!({ "sliding_window": 5 })),
        ("qwen2", "qwen2", sliding.clone()),
        ("qwen3", "qwen3", json!({ "attention_bias": true })),
        ("smollm3", "smollm3", json!({ "no_rope_layer_interval": 2, "mlp_bias": true })),
        ("biases", "llama", json!({ "attention_bias": true, "mlp_bias": true })),
        ("yarn", "llama", json!({ "rope_scaling": yarn })),
        ("dynamic", "llama", json!({ "rope_scaling": { "type": "dynamic", "factor": 3.0 } })),
    ];
    all.into_iter().map(|(name, model_type, changes)| (name, config(model_type, &changes))).collect()
}

fn config(model_type: &str, changes: &Value) -> Config {
    let mut json = json!({
        "model_type": model_type, "hidden_size": 72, "intermediate_size": 100, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 10, "vocab_size": 75,
        "max_position_embeddings": 16, "tie_word_embeddings": false, "sliding_window": null,
    });
    for (key, value) in changes.as_object().expect("a block") {
        json[key] = value.clone();
    }
    Config::from_json(&json.to_string(), Path::new("config.json")).expect("a valid config")
}

fn values(spec: &TensorSpec) -> Vec<f32> {
    let mut state = spec.name.bytes().fold(7u32, |state, byte| state.wrapping_mul(31) + u32::from(byte));
    let mut uniform = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 - 0.5
    };
    let middle = if spec.kind() == TensorKind::Norm { 1.0 } else { 0.0 };
    (0..spec.len()).map(|_| middle + uniform()).collect()
}

const TOKENS: [u32; 20] = [1, 74, 33, 0, 64, 31, 32, 5, 9, 70, 12, 12, 3, 40, 41, 7, 2, 66, 20, 19];

/// Logits of all tokens at a depth, taken in pieces.
fn logits(model: &Llama, exit_layer: usize, piece: usize) -> Vec<f32> {
    let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(TOKENS.len()));
    let (mut scratch, mut logits, mut all) = (Scratch::new(), Vec::new(), Vec::new());
    for tokens in TOKENS.chunks(piece) {
        model.embed(tokens, &mut hidden).expect("ids of the vocabulary");
        let batch = &mut Batch::one(&mut cache);
        model.forward(0..exit_layer, &mut hidden, batch, &mut scratch).expect("a small cache");
        model.head(&hidden, 0..tokens.len(), &mut logits, &mut scratch);
        all.extend_from_slice(&logits);
    }
    all
}

fn save(folder: &Path, config: &Config) {
    checkpoint::save(folder, config, &mut |spec| values(spec).into()).expect("a small model");
}

#[test]
fn any_cut_gives_the_same_bits_in_every_format() {
    for (name, config) in configs() {
        let folder = tempfile::tempdir().expect("a folder");
        save(folder.path(), &config);
        for format in Format::ALL {
            let model = Llama::load(folder.path(), &Formats::all(format)).expect("a good folder");
            let whole = logits(&model, 3, TOKENS.len());
            for piece in [1, 3, 7] {
                assert!(logits(&model, 3, piece) == whole, "{name} in {format}, {piece} tokens a call");
            }
        }
    }
}

/// Tokens that left early, whose deeper layers are filled late, are as if these had been there at once.
#[test]
fn layers_that_are_filled_late_hold_what_they_would_have_held() {
    for (name, config) in configs() {
        let mut take = |spec: &TensorSpec| Ok(values(spec));
        let model = Llama::from_weights(config, &mut take).expect("a small model");
        let last = |piece: usize| {
            let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(TOKENS.len()));
            let (mut scratch, mut logits) = (Scratch::new(), Vec::new());
            for tokens in TOKENS[..18].chunks(piece) {
                model.embed(tokens, &mut hidden).expect("ids of the vocabulary");
                let batch = &mut Batch::one(&mut cache);
                model.forward(0..1, &mut hidden, batch, &mut scratch).expect("a small cache");
                model.fill(1..3, &hidden, batch, &mut scratch).expect("a small cache");
            }
            model.embed(&TOKENS[18..], &mut hidden).expect("ids of the vocabulary");
            let batch = &mut Batch::one(&mut cache);
            model.forward(0..3, &mut hidden, batch, &mut scratch).expect("a small cache");
            model.head(&hidden, 0..2, &mut logits, &mut scratch);
            logits
        };
        assert!(last(1) == last(18), "{name}");
    }
}

#[test]
fn what_is_saved_is_loaded_and_what_is_quantized_is_what_loading_makes() {
    for (name, config) in configs() {
        let place = tempfile::tempdir().expect("a folder");
        let floats = place.path().join("f32");
        save(&floats, &config);
        let loaded = Llama::load(&floats, &Formats::default()).expect("a good folder");
        assert_eq!(*loaded.config(), config, "{name}");
        let given = Llama::from_weights(config.clone(), |spec| Ok(values(spec))).expect("a small model");
        assert!(logits(&loaded, 3, 20) == logits(&given, 3, 20), "{name}");
        // A bf16 folder's embedding is what a quantized folder keeps.
        let quantize = |from: &Path, format: Format| {
            let to = place.path().join(format.name());
            checkpoint::quantize(from, &to, &Formats::all(format), &mut |_, _| ()).expect("a good folder");
            to
        };
        let narrow = quantize(&floats, Format::Bf16);
        for format in [Format::Int8, Format::Int4] {
            let folder = quantize(&narrow, format);
            let quantized = Llama::load(&folder, &Formats::default()).expect("a good folder");
            assert_eq!(*quantized.config(), config, "{name} in {format}");
            let loaded = Llama::load(&narrow, &Formats::all(format)).expect("a good folder");
            assert!(logits(&quantized, 3, 20) == logits(&loaded, 3, 20), "{name} in {format}");
            let held = Config::read(&folder.join("config.json")).expect("a good config");
            let weights = Weights::open(&folder, &held).expect("a good folder");
            for spec in config.tensors().iter().filter(|spec| spec.kind() != TensorKind::Matrix) {
                assert_eq!(weights.take(spec).expect("floats").as_slice(), values(spec), "{}", spec.name);
            }
        }
    }
}

/// Zeros would hide a bias that is left out.
#[test]
fn a_random_model_has_biases_that_are_not_zero() {
    let with = config("llama", &json!({ "attention_bias": true, "mlp_bias": true }));
    let biased = Llama::random(with, 1, &Formats::default()).expect("a small model");
    let plain = Llama::random(config("llama", &json!({})), 1, &Formats::default()).expect("a small model");
    assert_ne!(logits(&biased, 1, 20), logits(&plain, 1, 20));
    let biases = 3 * 4 * (40 + 20 + 20 + 72 + 100 + 100 + 72); // of three layers, in f32
    assert_eq!(biased.bytes(), plain.bytes() + biases);
}

#[test]
fn a_window_counts_as_what_it_reads() {
    let windowed = config("mistral", &json!({ "sliding_window": 5 }));
    let plain = config("mistral", &json!({}));
    let work = |config: &Config, piece: usize| {
        let model = Llama::from_weights(config.clone(), |spec| Ok(values(spec))).expect("a small model");
        let (mut hidden, mut cache, mut scratch) = (model.new_hidden(), model.new_cache(20), Scratch::new());
        for tokens in TOKENS.chunks(piece) {
            model.embed(tokens, &mut hidden).expect("ids of the vocabulary");
            let batch = &mut Batch::one(&mut cache);
            model.forward(0..3, &mut hidden, batch, &mut scratch).expect("a small cache");
        }
        scratch.work()
    };
    // Of 20 tokens the one at position p sees p + 1, or 5 at most: 210, or 90; in three layers of four heads
    // of 10.
    for piece in [1, 20] {
        let saved = work(&plain, piece).operations - work(&windowed, piece).operations;
        assert_eq!(saved, 3 * 4 * 40 * (210 - 90), "{piece} tokens a call");
    }
    // One by one as many positions are read; together all of them are, once. A position has 2 · 2 · 10 values
    // of f32.
    let position = 2 * 2 * 10 * 4;
    let saved = |piece| work(&plain, piece).bytes - work(&windowed, piece).bytes;
    assert_eq!((saved(1), saved(20)), (3 * position * (210 - 90), 0));
}
