//! The low-bit family's configs.

use super::*;

/// As `with`, of a model of the low-bit family.
fn low_bit(bit_linear: BitLinear, changes: Value) -> Result<Config> {
    let config = Config { bit_linear: Some(bit_linear), ..with(json!({}))? };
    let mut json: Value = serde_json::from_str(&config.to_json()).unwrap();
    for (key, value) in changes.as_object().expect("changes are a block") {
        match key.strip_prefix("quantization_config.") {
            Some(key) => json["quantization_config"][key] = value.clone(),
            None => json[key] = value.clone(),
        }
    }
    Config::from_json(&json.to_string(), origin())
}

#[test]
fn the_low_bit_family_survives_its_file_and_has_its_norms() {
    for bit_linear in [BitLinear::V1, BitLinear::V2, BitLinear::V3] {
        let config = Config { bit_linear: Some(bit_linear), ..card() };
        assert_eq!(Config::from_json(&config.to_json(), origin()).unwrap(), config);
        let tensors = config.tensors();
        let sum: usize = tensors.iter().map(TensorSpec::len).sum();
        assert_eq!(sum as u64, config.parameter_count());
        assert_eq!(config.parameter_count(), card().parameter_count() + 24 * (2048 + 4096));
        let after = |name: &str| {
            let index = tensors.iter().position(|spec| spec.name == format!("model.layers.3.{name}.weight"));
            &tensors[index.expect("such a norm") + 1].name
        };
        assert!(after("self_attn.attn_sub_norm").ends_with("o_proj.weight"));
        assert!(after("mlp.ffn_sub_norm").ends_with("down_proj.weight"));
    }
    let v1: Value = serde_json::from_str(&low_bit(BitLinear::V1, json!({})).unwrap().to_json()).unwrap();
    assert_eq!((&v1["model_type"], &v1["hidden_act"]), (&json!("bitnet"), &json!("silu")));
    assert_eq!(v1["architectures"], json!(["BitNetForCausalLM"]));
}

/// What a scale means is half of what a packed weight is.
#[test]
fn packed_weights_keep_the_meaning_of_their_scales() {
    for bit_linear in [BitLinear::V1, BitLinear::V2, BitLinear::V3] {
        for scale in [WeightScale::Divides, WeightScale::Multiplies] {
            let layers =
                Quantization { layers: Format::Ternary, head: Format::F32, weight_scale: Some(scale) };
            let config = Config { bit_linear: Some(bit_linear), quantization: Some(layers), ..card() };
            assert_eq!(Config::from_json(&config.to_json(), origin()).unwrap(), config);
        }
    }
}

#[test]
fn what_would_be_another_low_bit_model_is_refused_by_name() {
    let (v1, v2) = (BitLinear::V1, BitLinear::V2);
    for (bit_linear, key, value, expected) in [
        (
            v1,
            "hidden_act",
            json!("relu2"),
            "hidden_act is \"relu2\": it must be \"silu\", the one activation that runs",
        ),
        (v1, "hidden_act", json!(null), "hidden_act is null: it must be \"silu\""),
        (v1, "quantization_config", json!(null), "quantization_config is null"),
        (
            v1,
            "quantization_config.quant_method",
            json!("bitskip"),
            "quant_method is \"bitskip\": it must be bitnet",
        ),
        (v1, "quantization_config.use_rms_norm", json!(true), "use_rms_norm is true: it must be false"),
        (v1, "quantization_config.modules_to_not_convert", json!(["lm_head"]), "modules_to_not_convert is "),
        (v1, "head_dim", json!(16), "head_dim is 16: it must be hidden_size / num_attention_heads"),
        (v2, "quantization_config.activation_bits", json!(5), "activation_bits is 5: it must be 4 or 8"),
        (v2, "quantization_config.hadamard", json!(false), "hadamard is false: it must be true"),
        (v2, "model_type", json!("bitnet"), "quant_method is \"bitskip\": it must be bitnet"),
        (
            v2,
            "intermediate_size",
            json!(96),
            "intermediate_size is 96: it must be such that it is a power of two",
        ),
        (
            v2,
            "head_dim",
            json!(12),
            "head_dim is 12: it must be such that num_attention_heads · head_dim is a power",
        ),
    ] {
        let message = low_bit(bit_linear, json!({ key: value })).expect_err(expected).to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    }
    // A norm that is not asked for may have any constant.
    assert!(low_bit(v1, json!({ "quantization_config.rms_norm_eps": 1e-5 })).is_ok());
    let bits = BitLinear { hadamard: false, ..v2 };
    let message = Config { bit_linear: Some(bits), ..card() }.validate(origin()).unwrap_err().to_string();
    assert!(message.contains("activation_bits is 4 without the rotation: it must be 8 bits"), "{message}");
}

/// BitNet's config class assumes other sizes and constants than Llama's.
#[test]
fn what_a_bitnet_does_not_say_is_what_transformers_assumes() {
    let config = low_bit(BitLinear::V1, json!({})).unwrap();
    let mut json: Value = serde_json::from_str(&config.to_json()).unwrap();
    let keys = ["quantization_config", "model_type", "hidden_act"];
    json.as_object_mut().unwrap().retain(|key, _| keys.contains(&&key[..]));
    let config = Config::from_json(&json.to_string(), origin()).unwrap();
    assert_eq!((config.hidden_size, config.intermediate_size, config.vocab_size), (2560, 6912, 128_256));
    assert_eq!((config.num_hidden_layers, config.num_attention_heads), (30, 20));
    assert_eq!((config.num_key_value_heads, config.head_dim), (5, 128));
    assert_eq!((config.rms_norm_eps, config.rope.theta), (1e-5, 500_000.0));
    assert_eq!((config.bos_token_id, config.eos_token_ids), (Some(128_000), vec![128_001]));
}
