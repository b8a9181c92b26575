//! One forward for every depth and every split of the tokens, bit for bit.

use offramp_model::{Batch, BitLinear, Config, Error, Format, Formats, KvCache, Llama, Scratch, checkpoint};
use std::path::Path;

const CONFIG: &str = r#"{
    "model_type": "llama", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 5,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "vocab_size": 31,
    "max_position_embeddings": 48, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
}"#;
const LAYERS: usize = 5;

fn config() -> Config {
    Config::from_json(CONFIG, Path::new("config.json")).expect("a valid config")
}

/// Weights from a small generator: of all sizes, so that orders of summation show.
fn weights() -> impl FnMut(usize) -> Vec<f32> {
    let mut state = 7u32;
    move |len| {
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 24) as f32 - 0.5
            })
            .collect()
    }
}

fn model() -> Llama {
    let mut weights = weights();
    Llama::from_weights(config(), |spec| Ok(weights(spec.len()))).expect("weights of the right sizes")
}

/// The model in every format, alone and with a head in another; then the low-bit family.
fn models() -> Vec<(String, Llama)> {
    let (folder, mut weights) = (tempfile::tempdir().expect("a folder"), weights());
    checkpoint::save(folder.path(), &config(), &mut |spec| weights(spec.len()).into()).expect("room");
    let others = [(Format::Int4, Format::Int8), (Format::Bf16, Format::Int4), (Format::Int8, Format::F32)];
    let all =
        Format::ALL.map(|format| (format, if format == Format::Ternary { Format::Int8 } else { format }));
    let pairs = all.into_iter().chain(others);
    let load = |(layers, head): (Format, Format)| {
        let formats = Formats { layers: Some(layers), head: Some(head), ..Formats::default() };
        let model = Llama::load(folder.path(), &formats).expect("a good folder");
        (format!("{layers} with a head in {head}"), model)
    };
    pairs.map(load).chain([BitLinear::V1, BitLinear::V2, BitLinear::V3].map(of_family)).collect()
}

/// As wide as a rotation asks for.
fn of_family(bit_linear: BitLinear) -> (String, Llama) {
    let sizes = Config { hidden_size: 32, head_dim: 8, intermediate_size: 64, ..config() };
    let (config, mut weights) = (Config { bit_linear: Some(bit_linear), ..sizes }, weights());
    let model =
        Llama::from_weights(config, |spec| Ok(weights(spec.len()))).expect("weights of the right sizes");
    assert_eq!(model.formats().layers, Some(Format::Ternary));
    (bit_linear.name().to_owned(), model)
}

fn tokens(len: usize) -> Vec<u32> {
    (0..len as u32).map(|i| i * 11 % 31).collect()
}

/// Logits of all `tokens`, taken in pieces, through the layer ranges given.
fn logits(model: &Llama, tokens: &[u32], piece: usize, cuts: &[usize], cache: &mut KvCache) -> Vec<f32> {
    let (mut hidden, mut logits, mut all) = (model.new_hidden(), Vec::new(), Vec::new());
    for tokens in tokens.chunks(piece) {
        model.embed(tokens, &mut hidden).expect("ids within the vocabulary");
        let mut depth = 0;
        for &cut in cuts {
            model
                .forward(depth..cut, &mut hidden, &mut Batch::one(cache), &mut Scratch::new())
                .expect("room in the cache");
            depth = cut;
        }
        model.head(&hidden, 0..tokens.len(), &mut logits, &mut Scratch::new());
        all.extend_from_slice(&logits);
    }
    all
}

#[test]
fn prefill_and_decode_are_one_full_pass() {
    let tokens = tokens(40);
    for (format, model) in models() {
        for exit in 1..=LAYERS {
            let whole = logits(&model, &tokens, 40, &[exit], &mut model.new_cache(40));
            assert!(whole.iter().all(|logit| logit.is_finite()));
            for piece in [1, 2, 3, 7, 17, 39] {
                let pieces = logits(&model, &tokens, piece, &[exit], &mut model.new_cache(48));
                assert!(pieces == whole, "{format}, exit {exit}, {piece} tokens at a time");
            }
        }
    }
}

#[test]
fn a_depth_reached_in_steps_is_the_same_depth() {
    let tokens = tokens(20);
    for (format, model) in models() {
        let whole = logits(&model, &tokens, 20, &[LAYERS], &mut model.new_cache(20));
        for cuts in [vec![1, 2, 3, 4, 5], vec![2, 5], vec![4, 5], vec![3, 3, 5]] {
            let steps = logits(&model, &tokens, 20, &cuts, &mut model.new_cache(20));
            assert!(steps == whole, "{format}, through {cuts:?}");
        }
        let shallow = logits(&model, &tokens, 20, &[2], &mut model.new_cache(20));
        assert_ne!(shallow, whole, "an exit is another function");
    }
}

#[test]
fn a_truncated_cache_keeps_no_trace() {
    let (model, tokens) = (model(), tokens(30));
    let mut fresh = model.new_cache(48);
    let expected = logits(&model, &tokens, 30, &[LAYERS], &mut fresh);

    let mut used = model.new_cache(48);
    let other: Vec<u32> = tokens.iter().map(|t| (t + 13) % 31).collect();
    logits(&model, &tokens[..10], 10, &[LAYERS], &mut used);
    logits(&model, &other, 15, &[LAYERS], &mut used);
    assert_eq!(used.len(LAYERS - 1), 40);
    used.truncate(10);
    assert_eq!((0..LAYERS).map(|l| used.len(l)).collect::<Vec<_>>(), [10; LAYERS]);
    let after = logits(&model, &tokens[10..], 20, &[LAYERS], &mut used);
    assert_eq!(after, expected[10 * 31..]);

    used.clear();
    assert!(used.is_empty() && used.bytes() == 0);
    assert_eq!(logits(&model, &tokens, 4, &[LAYERS], &mut used), expected);
    assert_eq!(used.bytes(), 30 * model.kv_bytes_per_position(LAYERS));
}

#[test]
fn layers_beyond_an_exit_stay_where_they_were() {
    let (model, tokens) = (model(), tokens(12));
    let mut cache = model.new_cache(48);
    logits(&model, &tokens, 12, &[LAYERS], &mut cache);
    logits(&model, &tokens, 12, &[2], &mut cache);
    assert_eq!((0..LAYERS).map(|l| cache.len(l)).collect::<Vec<_>>(), [24, 24, 12, 12, 12]);
    cache.truncate(20);
    assert_eq!((0..LAYERS).map(|l| cache.len(l)).collect::<Vec<_>>(), [20, 20, 12, 12, 12]);
}

#[test]
#[should_panic(expected = "hold different positions")]
fn a_range_over_uneven_layers_is_refused() {
    let (model, tokens) = (model(), tokens(4));
    let mut cache = model.new_cache(48);
    logits(&model, &tokens, 4, &[2], &mut cache);
    logits(&model, &tokens, 4, &[LAYERS], &mut cache);
}

#[test]
fn a_full_cache_is_an_error_and_changes_nothing() {
    let (model, tokens) = (model(), tokens(10));
    let mut cache = model.new_cache(8);
    logits(&model, &tokens[..6], 6, &[LAYERS], &mut cache);
    let mut hidden = model.new_hidden();
    model.embed(&tokens[6..], &mut hidden).expect("ids within the vocabulary");
    let before = hidden.clone();
    let error = model
        .forward(0..LAYERS, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new())
        .expect_err("10 positions in 8");
    assert!(matches!(error, Error::CacheFull { positions: 10, capacity: 8 }), "{error}");
    assert_eq!((hidden, cache.len(0)), (before, 6));
}

#[test]
fn a_cache_beyond_the_memory_is_an_error_and_changes_nothing() {
    let model = model();
    for capacity in [1 << 44, usize::MAX / 24, usize::MAX] {
        let mut cache = model.new_cache(capacity);
        let mut hidden = model.new_hidden();
        model.embed(&[1, 2], &mut hidden).expect("ids within the vocabulary");
        let before = hidden.clone();
        let error = model
            .forward(0..LAYERS, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new())
            .expect_err("more than any machine has");
        let message = error.to_string();
        assert!(message.contains(&format!("{capacity} positions")) && !message.contains('\n'), "{message}");
        assert_eq!((hidden, cache.len(0), cache.bytes()), (before, 0, 0));
    }
}

#[test]
fn one_layer_is_a_model() {
    let config = CONFIG.replace("\"num_hidden_layers\": 5", "\"num_hidden_layers\": 1");
    let config = Config::from_json(&config, Path::new("config.json")).expect("a valid config");
    assert_eq!(Config::quarters(config.num_hidden_layers), [1]);
    let weights = |len: usize| (0..len).map(|i| ((i * 7 % 23) as f32 - 11.0) / 23.0).collect();
    let model = Llama::from_weights(config, |spec| Ok(weights(spec.len()))).expect("the right sizes");
    let tokens = tokens(12);
    let whole = logits(&model, &tokens, 12, &[1], &mut model.new_cache(12));
    assert_eq!(logits(&model, &tokens, 1, &[1], &mut model.new_cache(12)), whole);
    assert!(whole.iter().all(|logit| logit.is_finite()));
}

#[test]
fn an_unknown_token_is_named() {
    let model = model();
    let error = model.embed(&[3, 31], &mut model.new_hidden()).expect_err("31 tokens: 0 to 30");
    let message = error.to_string();
    assert!(message.contains("31") && !message.contains('\n'), "{message}");
}

#[test]
fn any_rows_of_the_head_are_rows_of_the_whole() {
    let (model, tokens) = (model(), tokens(9));
    let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(9));
    model.embed(&tokens, &mut hidden).expect("ids within the vocabulary");
    model
        .forward(0..3, &mut hidden, &mut Batch::one(&mut cache), &mut Scratch::new())
        .expect("room in the cache");
    let (mut whole, mut some) = (Vec::new(), Vec::new());
    model.head(&hidden, 0..9, &mut whole, &mut Scratch::new());
    for range in [0..1, 4..7, 8..9] {
        model.head(&hidden, range.clone(), &mut some, &mut Scratch::new());
        assert_eq!(some, whole[range.start * 31..range.end * 31]);
    }
}
