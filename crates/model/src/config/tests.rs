use super::*;
use crate::tensor::{TensorKind, TensorSpec};
use serde_json::{Value, json};

mod by_hand;
mod families;
mod low_bit;
mod rope;

fn origin() -> &'static Path {
    Path::new("some/config.json")
}

/// A valid config with some keys replaced; `null` is as good as absent, but for the token ids.
fn with(changes: Value) -> Result<Config> {
    let mut json = json!({
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    });
    for (key, value) in changes.as_object().expect("changes are a block") {
        json[key] = value.clone();
    }
    Config::from_json(&json.to_string(), origin())
}

fn message(changes: Value) -> String {
    let error = with(changes.clone()).expect_err(&changes.to_string());
    let message = error.to_string();
    assert!(message.starts_with("some/config.json: ") && !message.contains('\n'), "{message}");
    message
}

/// The model card, number for number.
fn card() -> Config {
    Config {
        hidden_size: 2048,
        intermediate_size: 4096,
        num_hidden_layers: 24,
        num_attention_heads: 32,
        num_key_value_heads: 8,
        head_dim: 64,
        vocab_size: 50_257,
        max_position_embeddings: 512,
        rms_norm_eps: 1e-5,
        rope: RopeParameters { theta: 10_000.0, scaling: RopeScaling::Default },
        family: Family::default(),
        tie_word_embeddings: false,
        bos_token_id: Some(50_256),
        eos_token_ids: vec![50_256],
        early_exit: Some(EarlyExit {
            early_exit_loss_scale: 0.3,
            curriculum: "all".to_owned(),
            layer_dropout: "quadratic".to_owned(),
            layer_dropout_max: 0.5,
        }),
        bit_linear: None,
        quantization: None,
    }
}

#[test]
fn the_card_has_as_many_parameters_as_it_says() {
    let card = card();
    card.validate(origin()).unwrap();
    assert_eq!(card.parameter_count(), 1_061_591_040);
    let tied = Config { tie_word_embeddings: true, ..card.clone() };
    assert_eq!(tied.parameter_count(), 1_061_591_040 - 50_257 * 2048);
    for config in [card, tied] {
        let sum: usize = config.tensors().iter().map(TensorSpec::len).sum();
        assert_eq!(sum as u64, config.parameter_count());
    }
}

#[test]
fn tensors_have_hugging_faces_names_and_shapes() {
    let config = with(json!({ "head_dim": 16, "num_hidden_layers": 2 })).unwrap();
    let tensors = config.tensors();
    let found: Vec<_> = tensors.iter().map(|spec| (spec.name.as_str(), &spec.shape[..])).collect();
    assert_eq!(found.len(), 1 + 2 * 9 + 2);
    assert_eq!(found[0], ("model.embed_tokens.weight", &[100, 32][..]));
    assert_eq!(found[11], ("model.layers.1.self_attn.q_proj.weight", &[64, 32][..]));
    assert_eq!(found[12], ("model.layers.1.self_attn.k_proj.weight", &[32, 32][..]));
    assert_eq!(found[14], ("model.layers.1.self_attn.o_proj.weight", &[32, 64][..]));
    assert_eq!(found[15], ("model.layers.1.post_attention_layernorm.weight", &[32][..]));
    assert_eq!(found[18], ("model.layers.1.mlp.down_proj.weight", &[32, 64][..]));
    assert_eq!(found[19..], [("model.norm.weight", &[32][..]), ("lm_head.weight", &[100, 32][..])]);
}

#[test]
fn what_the_file_does_not_say_is_what_transformers_assumes() {
    let config = with(json!({
        "num_key_value_heads": null, "rms_norm_eps": null, "rope_theta": null, "max_position_embeddings": null,
    }));
    let config = config.unwrap();
    assert_eq!((config.head_dim, config.num_key_value_heads), (8, 4));
    assert_eq!((config.rms_norm_eps, config.max_position_embeddings), (1e-6, 2048));
    assert_eq!(config.rope, RopeParameters { theta: 10_000.0, scaling: RopeScaling::Default });
    assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(1), vec![2]));
    assert!(!config.tie_word_embeddings && config.early_exit.is_none());
}

#[test]
fn end_tokens_are_none_one_or_several() {
    let ids = |value: Value| with(json!({ "eos_token_id": value })).unwrap().eos_token_ids;
    assert_eq!(ids(json!(7)), [7]);
    assert_eq!(ids(json!([7, 9])), [7, 9]);
    assert!(ids(json!(null)).is_empty());
    assert_eq!(with(json!({ "bos_token_id": null })).unwrap().bos_token_id, None);
    assert!(
        message(json!({ "eos_token_id": [3, -1] })).contains("eos_token_id is [3,-1]: it must be a token id")
    );
    assert!(message(json!({ "bos_token_id": "<s>" })).contains("bos_token_id is \"<s>\""));
}

/// Values come from the file, and go to a terminal.
#[test]
fn a_value_stays_in_the_line() {
    for value in
        [json!("a\u{9b}2Jb"), json!("a\u{7f}b"), json!("x".repeat(100_000)), json!([vec!["a\n"; 1000]])]
    {
        for key in ["vocab_size", "eos_token_id", "model_type", "rope_scaling", "early_exit", "hidden_act"] {
            let message = message(json!({ key: value }));
            assert!(!message.contains(char::is_control) && message.len() < 1000, "{message:?}");
        }
    }
}

#[test]
fn rope_is_read_from_either_generation_of_keys() {
    let rope = |changes: Value| with(changes).unwrap().rope;
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 32,
    };
    let keys = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    });
    let expected = RopeParameters { theta: 500_000.0, scaling: llama3 };
    assert_eq!(rope(json!({ "rope_theta": 5e5, "rope_scaling": keys })), expected);
    let mut new = keys.clone();
    new["rope_theta"] = json!(500_000);
    assert_eq!(rope(json!({ "rope_theta": null, "rope_parameters": new })), expected);
    assert_eq!(rope(json!({ "rope_theta": 5e5, "rope_parameters": new, "rope_scaling": keys })), expected);

    let linear = RopeParameters { theta: 10_000.0, scaling: RopeScaling::Linear { factor: 2.0 } };
    assert_eq!(rope(json!({ "rope_scaling": { "type": "linear", "factor": 2.0 } })), linear);
    assert_eq!(rope(json!({ "rope_parameters": { "rope_type": "linear", "factor": 2 } })), linear);
    let default = RopeParameters { theta: 10_000.0, scaling: RopeScaling::Default };
    assert_eq!(rope(json!({ "rope_parameters": { "rope_type": "default", "rope_theta": 1e4 } })), default);
    assert_eq!(rope(json!({ "rope_scaling": {} })), default);
}

#[test]
fn rope_that_cannot_be_honoured_is_refused_by_name() {
    let missing = message(json!({ "rope_parameters": { "rope_type": "linear" } }));
    assert!(missing.contains("rope_parameters.factor is missing"), "{missing}");
    for bad in [
        json!({ "rope_scaling": "linear" }),
        json!({ "rope_scaling": { "type": "linear", "factor": 0.5 } }),
        json!({ "rope_scaling": { "type": "linear", "factor": "2" } }),
        json!({ "rope_scaling": { "rope_type": 3 } }),
        json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }),
        json!({ "rope_parameters": { "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4 } }),
        json!({ "rope_parameters": { "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4.000000001 } }),
        json!({ "rope_theta": 0 }),
        json!({ "rope_theta": 1e-60 }), // no f32
        json!({ "rope_theta": 1e-30 }), // frequencies that leave f32 after a few positions
        json!({ "rope_theta": -10000.0 }),
        json!({ "rope_theta": 1e300 }),
    ] {
        assert!(message(bad).contains("rope_"));
    }
    // One generation of transformers would read one, the next the other.
    let two = message(
        json!({ "rope_parameters": { "rope_type": "linear", "factor": 2 }, "rope_scaling": { "type": "linear", "factor": 4 } }),
    );
    assert!(two.contains("rope_scaling is ") && two.contains("the same as rope_parameters"), "{two}");
    assert!(message(json!({ "rope_parameters": { "rope_theta": 5e5 } })).contains("rope_theta is 10000"));
    let own = json!({ "rope_scaling": { "type": "linear", "factor": 2, "rope_theta": 5e5 } });
    assert!(message(own).contains("rope_theta is 10000"));
    assert!(message(json!({ "partial_rotary_factor": 0.5 })).contains("partial_rotary_factor is 0.5"));
}

#[test]
fn another_model_is_refused_by_name() {
    for (key, value) in [
        ("model_type", json!("gemma")),
        ("model_type", json!(null)),
        ("hidden_act", json!("gelu")),
        ("attention_bias", json!(1)),
        ("mlp_bias", json!("no")),
        ("quantization_config", json!("int8")),
        ("early_exit", json!({ "curriculum": "all" })),
        ("tie_word_embeddings", json!(1)),
    ] {
        let message = message(json!({ key: value }));
        assert!(message.contains(&format!("{key} is ")), "{message}");
    }
    let fine =
        json!({ "hidden_act": "silu", "mlp_bias": false, "quantization_config": null, "new_key": [1] });
    with(fine).unwrap();
}

#[test]
fn a_quantization_survives_its_block_and_another_is_refused() {
    let all = [Format::F32, Format::Bf16, Format::Int8, Format::Int4];
    let formats = all.into_iter().flat_map(|layers| all.map(|head| (layers, head)));
    for (layers, head) in formats {
        let config = Config { quantization: Quantization::of(layers, head), ..card() };
        assert_eq!(config.quantization.is_some(), layers >= Format::Int8 || head >= Format::Int8);
        assert_eq!(Config::from_json(&config.to_json(), origin()).unwrap(), config);
    }
    let good = Quantization::of(Format::Int8, Format::Bf16).unwrap().json();
    let refused = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut block = good.clone();
        change(&mut block);
        let message = message(json!({ "quantization_config": block }));
        assert!(message.contains(&format!("json: quantization_config.{expected}")), "{message}");
    };
    let llama = "quant_method is \"bitnet\": it must be beside model_type bitnet: a llama with bitnet's layers does \
                 not run here, take the float model";
    refused(&|block| block["quant_method"] = json!("bitnet"), llama);
    for method in ["gptq", "awq", "bitsandbytes", "fp8", "compressed-tensors"] {
        let expected = format!(
            "quant_method is \"{method}\": it must be \"offramp\", or there is no such block: take the"
        );
        refused(&|block| block["quant_method"] = json!(method), &expected);
    }
    refused(&|block| block["quant_method"] = Value::Null, "quant_method is null");
    refused(&|block| block["layers"]["format"] = json!("int3"), "layers is {");
    refused(&|block| block["layers"] = json!("int8"), "layers is \"int8\": it must be a block whose format");
    refused(&|block| block["layers"]["block_size"] = json!(128), "layers is {");
    refused(&|block| block["layers"] = block["head"].clone(), "layers is {\"format\":\"bf16\"}");
    refused(&|block| block["strip_rows"] = json!(16), "strip_rows is 16: it must be 32: quantize the float");
    refused(&|block| block["transposed"] = json!(true), "transposed is true: it must be absent");
}

#[test]
fn impossible_sizes_are_named() {
    for (key, value) in [
        ("hidden_size", json!(0)),
        ("hidden_size", json!(-32)),
        ("hidden_size", json!(32.5)),
        ("hidden_size", json!("32")),
        ("hidden_size", json!(null)),
        ("hidden_size", json!(1_000_000_000_000_000_000u64)),
        ("hidden_size", json!(34)), // 4 heads
        ("intermediate_size", json!(u64::MAX)),
        ("num_hidden_layers", json!(1e18)),
        ("num_hidden_layers", json!(1_000_000_000)),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!([4])),
        ("num_key_value_heads", json!(0)),
        ("num_key_value_heads", json!(3)),
        ("num_key_value_heads", json!(8)),
        ("head_dim", json!(7)),
        ("head_dim", json!(0)),
        ("head_dim", json!(1u64 << 40)),
        ("vocab_size", json!(0)),
        ("vocab_size", json!(1u64 << 33)),
        ("max_position_embeddings", json!(0)),
        ("max_position_embeddings", json!(1u64 << 62)),
        ("rms_norm_eps", json!(-1.0)),
        ("rms_norm_eps", json!("small")),
    ] {
        let message = message(json!({ key: value }));
        assert!(
            message.contains(&format!("{key} is ")) && message.contains("it must be "),
            "{key}: {message}"
        );
    }
    let most = (1u64 << 31) - 4;
    let all = json!({ "hidden_size": most, "vocab_size": most, "intermediate_size": most, "head_dim": most });
    assert!(message(all).contains("at most 4398046511104 parameters"));
}

#[test]
fn what_is_no_config_is_refused() {
    for text in ["", "{", "[1]", "\"llama\"", "{\"hidden_size\": 8}", "\u{0}", "nan"] {
        let message = Config::from_json(text, origin()).expect_err(text).to_string();
        assert!(message.starts_with("some/config.json: ") && !message.contains('\n'), "{message}");
    }
    let long = message(json!({ "model_type": "x".repeat(500) }));
    assert!(long.len() < 250, "{long}");
    let deep = format!("{{\"model_type\": {}", "[".repeat(100_000));
    assert!(Config::from_json(&deep, origin()).is_err());
    assert!(
        Config::read(Path::new("no/such/config.json"))
            .unwrap_err()
            .to_string()
            .contains("no/such/config.json")
    );
}

#[test]
fn a_config_survives_its_file() {
    let llama3 = RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 256,
    };
    let card = card();
    for config in [
        Config { rope: RopeParameters { theta: 5e5, scaling: llama3 }, ..card.clone() },
        Config {
            rope: RopeParameters { theta: 1e4 + 0.1 + 0.2, scaling: RopeScaling::Linear { factor: 2.5 } },
            ..card.clone()
        },
        Config { bos_token_id: None, eos_token_ids: vec![], early_exit: None, ..card.clone() },
        Config { eos_token_ids: vec![1, 2], head_dim: 128, tie_word_embeddings: true, ..card.clone() },
        card,
    ] {
        let text = config.to_json();
        assert_eq!(Config::from_json(&text, origin()).unwrap(), config);
        assert!(text.ends_with("}\n"));
        // Either generation's keys alone say the same.
        for keys in [&["rope_parameters"][..], &["rope_scaling", "rope_theta"]] {
            let mut json: Value = serde_json::from_str(&text).unwrap();
            keys.iter().for_each(|key| json[key] = Value::Null);
            assert_eq!(Config::from_json(&json.to_string(), origin()).unwrap(), config);
        }
    }
}

#[test]
fn quarters_are_exits_that_exist_in_order_and_once() {
    let quarters = Config::quarters;
    assert_eq!(quarters(24), [6, 12, 18, 24]);
    assert_eq!((quarters(1), quarters(2)), (vec![1], vec![1, 2]));
    assert_eq!((quarters(3), quarters(4)), (vec![1, 2, 3], vec![1, 2, 3, 4]));
    assert_eq!(quarters(7), [1, 3, 5, 7]);
    for layers in 1..100 {
        let config = Config { num_hidden_layers: layers, ..card() };
        let exits = quarters(layers);
        assert!(exits.is_sorted_by(|a, b| a < b) && exits.last() == Some(&layers), "{exits:?}");
        exits.iter().for_each(|&exit| config.check_exit_layer(exit).unwrap());
    }
}

#[test]
fn exits_are_one_to_the_last_layer() {
    let config = card();
    (1..=24).for_each(|exit| config.check_exit_layer(exit).unwrap());
    for exit in [0, 25, usize::MAX] {
        let message = config.check_exit_layer(exit).unwrap_err().to_string();
        assert_eq!(message, format!("there is no exit layer {exit}: this model's are 1 to 24"));
    }
}

#[test]
fn the_early_exit_block_is_checked() {
    let block = |scale: f64, most: f64| {
        json!({ "early_exit": {
            "early_exit_loss_scale": scale, "curriculum": "all", "layer_dropout": "quadratic", "layer_dropout_max": most,
        }})
    };
    assert_eq!(with(block(0.3, 0.5)).unwrap().early_exit, card().early_exit);
    assert!(with(block(0.3, 0.5)).unwrap().trained_for_exits());
    let mut without = block(0.3, 0.0);
    without["early_exit"]["curriculum"] = json!("none");
    assert!(!with(without).unwrap().trained_for_exits(), "a run without early exits says so");
    assert!(message(block(-1.0, 0.5)).contains("early_exit.early_exit_loss_scale is -1"));
    assert!(message(block(0.3, 1.0)).contains("early_exit.layer_dropout_max is 1"));
}
