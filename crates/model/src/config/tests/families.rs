//! The families' configs: what they say, what they need not say, and what goes further.

use super::*;
use std::collections::BTreeSet;

/// A valid config of a family with some keys replaced.
fn of(model_type: &str, changes: Value) -> Result<Config> {
    let mut changes = changes;
    changes["model_type"] = json!(model_type);
    with(changes)
}

#[track_caller]
fn refused(model_type: &str, changes: Value, expected: &str) {
    let message = of(model_type, changes).expect_err(expected).to_string();
    assert!(message.contains(expected) && !message.contains('\n'), "{message}");
}

/// What `of` gives, and that it survives its file.
#[track_caller]
fn family(model_type: &str, changes: Value) -> Family {
    let config = of(model_type, changes).unwrap();
    let text = config.to_json();
    assert_eq!(Config::from_json(&text, origin()).unwrap(), config, "{text}");
    let sum: usize = config.tensors().iter().map(TensorSpec::len).sum();
    assert_eq!(sum as u64, config.parameter_count());
    config.family
}

fn window(size: usize, layers: impl IntoIterator<Item = usize>) -> Option<SlidingWindow> {
    Some(SlidingWindow { size, layers: layers.into_iter().collect() })
}

/// The modules of a layer that have a tensor of this kind.
fn modules(config: &Config, kind: TensorKind) -> Vec<&'static str> {
    let tensors = config.layer_tensors();
    tensors.iter().filter(|tensor| tensor.kind == kind).map(|tensor| tensor.module).collect()
}

#[test]
fn each_family_has_its_biases_and_norms() {
    let biases = |model_type: &str, changes: Value| {
        let config = of(model_type, changes.clone()).unwrap();
        family(model_type, changes);
        modules(&config, TensorKind::Bias).join(" ").replace("self_attn.", "").replace("mlp.", "")
    };
    let both = json!({ "attention_bias": true, "mlp_bias": true });
    assert_eq!(biases("llama", json!({})), "");
    assert_eq!(biases("mistral", json!({})), "");
    assert_eq!(biases("qwen2", json!({})), "q_proj k_proj v_proj");
    assert_eq!(biases("qwen2", json!({ "attention_bias": false })), "q_proj k_proj v_proj");
    assert_eq!(biases("qwen3", json!({})), "");
    assert_eq!(biases("qwen3", json!({ "attention_bias": true })), "q_proj k_proj v_proj o_proj");
    let all = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj";
    assert_eq!(biases("llama", both.clone()), all);
    assert_eq!(biases("smollm3", both), all);
    let qwen3 = of("qwen3", json!({ "head_dim": 6 })).unwrap();
    assert_eq!(modules(&qwen3, TensorKind::Norm)[1..3], ["self_attn.q_norm", "self_attn.k_norm"]);
    let spec = |module: &str, kind| {
        let tensors = qwen3.layer_tensors();
        tensors.into_iter().find(|tensor| (tensor.module, tensor.kind) == (module, kind)).unwrap().spec(2)
    };
    let norm = spec("self_attn.q_norm", TensorKind::Norm);
    assert_eq!(norm, TensorSpec::new("model.layers.2.self_attn.q_norm.weight", &[6]));
    assert_eq!(norm.kind(), TensorKind::Norm);
    let bias = of("qwen2", json!({})).unwrap().layer_tensors()[5].spec(0);
    assert_eq!(bias, TensorSpec::new("model.layers.0.self_attn.k_proj.bias", &[16]));
    assert_eq!(bias.kind(), TensorKind::Bias);
}

#[test]
fn windows_are_those_of_transformers() {
    let sliding = |model_type: &str, changes: Value| family(model_type, changes).sliding_window;
    assert_eq!(sliding("llama", json!({ "sliding_window": 3 })), None);
    assert_eq!(sliding("mistral", json!({})), window(4096, 0..4));
    assert_eq!(sliding("mistral", json!({ "sliding_window": 3 })), window(3, 0..4));
    assert_eq!(sliding("mistral", json!({ "sliding_window": null })), None);
    for qwen in ["qwen2", "qwen3"] {
        assert_eq!(sliding(qwen, json!({ "sliding_window": 3, "max_window_layers": 1 })), None);
        let used = json!({ "use_sliding_window": true, "sliding_window": 3, "max_window_layers": 1 });
        assert_eq!(sliding(qwen, used.clone()), window(3, 1..4));
        let mut types = used.clone();
        types["layer_types"] =
            json!(["sliding_attention", "full_attention", "sliding_attention", "full_attention"]);
        assert_eq!(sliding(qwen, types), window(3, [0, 2]));
        assert_eq!(sliding(qwen, json!({ "use_sliding_window": true })), None); // from layer 28 on
        let none = json!({ "use_sliding_window": true, "sliding_window": null, "max_window_layers": 0 });
        assert_eq!(sliding(qwen, none), None);
    }
    let smollm3 = json!({ "use_sliding_window": true, "sliding_window": 3, "no_rope_layer_interval": 2 });
    assert_eq!(sliding("smollm3", smollm3), window(3, [1, 3]));
}

#[test]
fn layers_without_rotary_are_those_of_transformers() {
    let no_rope = |changes: Value| Vec::from_iter(family("smollm3", changes).no_rope_layers);
    assert_eq!(no_rope(json!({})), [3]);
    assert_eq!(no_rope(json!({ "no_rope_layer_interval": 2 })), [1, 3]);
    assert_eq!(no_rope(json!({ "no_rope_layer_interval": 1 })), [0, 1, 2, 3]);
    assert_eq!(no_rope(json!({ "no_rope_layers": [0, 1, 1, 0, 0, 1] })), [0, 3]);
    assert_eq!(no_rope(json!({ "no_rope_layers": [1, 1, 1, 1], "no_rope_layer_interval": 2 })), [0usize; 0]);
    let attention = |layer| of("smollm3", json!({})).unwrap().layer_attention(layer);
    assert_eq!((attention(2).rotates, attention(3).rotates), (true, false));
}

/// `sliding_window_overlay` of transformers: kv_idx > q_idx - sliding_window.
#[test]
fn a_window_counts_the_token_itself() {
    let attention = of("mistral", json!({ "sliding_window": 3 })).unwrap().layer_attention(0);
    assert_eq!([0, 1, 2, 3, 7].map(|position| attention.first_visible(position)), [0, 0, 0, 1, 5]);
    assert_eq!(card().layer_attention(0).first_visible(1000), 0);
}

#[test]
fn what_a_family_does_not_say_is_what_transformers_assumes() {
    let assumed = |model_type: &str| {
        let text = json!({ "model_type": model_type }).to_string();
        Config::from_json(&text, origin()).unwrap()
    };
    let sizes = |config: &Config| (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
    let heads = |config: &Config| (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let (mistral, qwen2, qwen3) = (assumed("mistral"), assumed("qwen2"), assumed("qwen3"));
    assert_eq!((sizes(&mistral), heads(&mistral)), ((4096, 14336, 32), (32, 8, 128)));
    assert_eq!((mistral.vocab_size, mistral.max_position_embeddings), (32000, 131_072));
    assert_eq!(mistral.family.sliding_window, window(4096, 0..32));
    assert_eq!((sizes(&qwen2), heads(&qwen2)), ((4096, 22016, 32), (32, 32, 128)));
    assert_eq!((qwen2.vocab_size, qwen2.max_position_embeddings), (151_936, 32768));
    assert_eq!((qwen2.bos_token_id, &qwen2.eos_token_ids[..]), (None, &[][..]));
    assert_eq!(qwen3, Config { family: qwen3.family.clone(), ..qwen2 });
    let width = of("qwen3", json!({})).unwrap().head_dim; // and not hidden_size / num_attention_heads
    assert_eq!((width, of("qwen2", json!({})).unwrap().head_dim), (128, 8));
    let smollm3 = assumed("smollm3");
    assert_eq!((sizes(&smollm3), heads(&smollm3)), ((2048, 11008, 36), (16, 4, 128)));
    assert_eq!((smollm3.vocab_size, smollm3.max_position_embeddings), (128_256, 32768));
    assert_eq!((smollm3.rope.theta, smollm3.tie_word_embeddings), (2e6, true));
    assert_eq!((smollm3.bos_token_id, &smollm3.eos_token_ids[..]), (Some(128_000), &[128_001][..]));
    assert_eq!(Vec::from_iter(smollm3.family.no_rope_layers), [3, 7, 11, 15, 19, 23, 27, 31, 35]);
}

#[test]
fn what_goes_further_is_refused_by_its_key() {
    for model_type in ["qwen2_moe", "qwen3_moe", "gpt_oss", "gemma2", "phi3", "ministral"] {
        let expected = "\"smollm3\", \"bitnet\" or \"bitskip\", the architectures that run here";
        refused(model_type, json!({}), expected);
    }
    for (key, value) in [
        ("attn_logit_softcapping", json!(30.0)),
        ("num_local_experts", json!(8)),
        ("use_mrope", json!(true)),
        ("attention_chunk_size", json!(8192)),
    ] {
        refused(
            "mistral",
            json!({ key: value }),
            &format!("{key} is {value}: it must be absent: a model that"),
        );
        of("mistral", json!({ key: null })).unwrap();
    }
    of("qwen2", json!({ "use_mrope": false, "num_experts": 0 })).unwrap();
    for (model_type, key) in
        [("mistral", "attention_bias"), ("mistral", "mlp_bias"), ("qwen2", "mlp_bias"), ("qwen3", "mlp_bias")]
    {
        let expected = format!("{key} is true: it must be false: a {model_type} has no such biases");
        refused(model_type, json!({ key: true }), &expected);
    }
    let chunked = json!(["chunked_attention", "full_attention", "full_attention", "full_attention"]);
    refused("qwen3", json!({ "layer_types": chunked }), "layer_types is [\"chunked_attention\"");
    let sliding = json!(["sliding_attention", "full_attention", "full_attention", "full_attention"]);
    refused("qwen3", json!({ "layer_types": sliding }), "or beside use_sliding_window");
    refused("mistral", json!({ "layer_types": sliding }), "sliding_window is that of all layers, or null");
    refused("qwen2", json!({ "layer_types": ["full_attention"] }), "one for each layer");
    refused("mistral", json!({ "sliding_window": 0 }), "sliding_window is 0: it must be 1 to");
    refused("smollm3", json!({ "no_rope_layers": [1, 0] }), "a list of 0 and 1, one for each layer");
    refused("smollm3", json!({ "no_rope_layers": "0101" }), "a list of 0 and 1, one for each layer");
    refused(
        "smollm3",
        json!({ "no_rope_layer_interval": 0 }),
        "no_rope_layer_interval is 0: it must be 1 or",
    );
    // transformers refuses this of a llama alone.
    of("qwen3", json!({ "hidden_size": 34, "head_dim": 8 })).unwrap();
    for depth in [json!(1_000_000_000_000_000_000u64), json!(20_000)] {
        refused("mistral", json!({ "num_hidden_layers": depth }), "num_hidden_layers is ");
        refused("smollm3", json!({ "num_hidden_layers": depth }), "num_hidden_layers is ");
    }
}

#[test]
fn a_ternary_model_has_no_biases() {
    for bit_linear in [BitLinear::V1, BitLinear::V2] {
        let family = Family { attention_bias: true, ..Family::default() };
        let config = Config { bit_linear: Some(bit_linear), family, ..card() };
        let message = config.validate(origin()).unwrap_err().to_string();
        assert!(message.contains("attention_bias is true: it must be false: a bitskip-v"), "{message}");
        let family = Family { model_type: ModelType::Qwen3, ..Family::default() };
        let config = Config { bit_linear: Some(bit_linear), family, ..card() };
        assert!(config.validate(origin()).unwrap_err().to_string().contains("model_type is qwen3"));
    }
}

/// Sets that no reader makes, and a writer would lose.
#[test]
fn a_family_that_its_file_could_not_hold_is_refused() {
    let invalid = |family: Family, key: &str| {
        let message = Config { family, ..card() }.validate(origin()).unwrap_err().to_string();
        assert!(message.contains(&format!("{key} is ")), "{message}");
    };
    let of = |model_type| Family { model_type, ..Family::default() };
    let layers = |layers: &[usize]| BTreeSet::from_iter(layers.iter().copied());
    invalid(Family { no_rope_layers: layers(&[1]), ..of(ModelType::Llama) }, "no_rope_layers");
    invalid(Family { no_rope_layers: layers(&[24]), ..of(ModelType::SmolLm3) }, "no_rope_layers");
    invalid(Family { sliding_window: window(3, 0..24), ..of(ModelType::Llama) }, "layer_types");
    invalid(Family { sliding_window: window(3, 0..23), ..of(ModelType::Mistral) }, "layer_types");
    invalid(Family { sliding_window: window(3, [24]), ..of(ModelType::Qwen2) }, "layer_types");
}
