//! From a [`Config`] to `config.json` and `generation_config.json`.
//!
//! transformers 4.45 reads `rope_theta`, `rope_scaling` and `torch_dtype`; transformers 5 reads
//! `rope_parameters` and `dtype`, but takes `rope_scaling` over `rope_parameters` where both are given.
//! Both sets are written and say the same, so that each version, and each one's idea of precedence,
//! arrives at one model.

use super::{Config, RopeScaling, WeightScale};
use crate::format::Format;
use serde_json::{Map, Value, json};

pub(super) fn config_json(config: &Config, floats: Format) -> String {
    let (architecture, model_type) =
        config.bit_linear.map_or(("LlamaForCausalLM", "llama"), |bit_linear| bit_linear.model_type());
    let dtype = if floats == Format::F32 { "float32" } else { "bfloat16" };
    let mut json = json!({
        "architectures": [architecture],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "dtype": dtype,
        "eos_token_id": eos_token_id(config),
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": 0.02,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "mlp_bias": false,
        "model_type": model_type,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": rope_parameters(config),
        "rope_scaling": rope_scaling(config),
        "rope_theta": config.rope.theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": dtype,
        "use_cache": true,
        "vocab_size": config.vocab_size,
    });
    if let Some(early_exit) = &config.early_exit {
        json["early_exit"] = json!(early_exit);
    }
    let block = match (config.bit_linear, config.quantization) {
        (Some(bit_linear), Some(packed)) => {
            Some(bit_linear.packed_json(packed.weight_scale.unwrap_or(WeightScale::Divides)))
        }
        (Some(bit_linear), None) => Some(bit_linear.json()),
        (None, quantization) => quantization.map(|quantization| quantization.json()),
    };
    if let Some(block) = block {
        json["quantization_config"] = block;
    }
    pretty(&json)
}

pub(super) fn generation_json(config: &Config) -> String {
    pretty(&json!({ "bos_token_id": config.bos_token_id, "eos_token_id": eos_token_id(config) }))
}

fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

/// One id as a number, several as a list: what every version reads.
fn eos_token_id(config: &Config) -> Value {
    match &config.eos_token_ids[..] {
        [] => Value::Null,
        [id] => json!(id),
        ids => json!(ids),
    }
}

fn rope_parameters(config: &Config) -> Map<String, Value> {
    let mut keys = match rope_scaling(config) {
        Value::Object(keys) => keys,
        _ => Map::from_iter([("rope_type".to_owned(), json!("default"))]),
    };
    keys.insert("rope_theta".to_owned(), json!(config.rope.theta));
    keys
}

/// `null` without scaling: transformers 4.45 wants either that or a known type with all of its keys.
fn rope_scaling(config: &Config) -> Value {
    match config.rope.scaling {
        RopeScaling::Default => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => {
            json!({
                "rope_type": "llama3",
                "factor": factor,
                "low_freq_factor": low_freq_factor,
                "high_freq_factor": high_freq_factor,
                "original_max_position_embeddings": original_max_position_embeddings,
            })
        }
    }
}
