//! From a [`Config`] to `config.json` and `generation_config.json`.
//!
//! transformers 4.45 reads `rope_theta`, `rope_scaling` and `torch_dtype`. transformers 5 reads
//! `rope_parameters` and `dtype`, but prefers `rope_scaling` where both are given. Both sets are written and
//! say the same, so that every version loads the same model.

use super::{Config, Family, ModelType, RopeScaling, WeightScale, Yarn};
use crate::format::Format;
use serde_json::{Map, Value, json};

pub(super) fn config_json(config: &Config, floats: Format) -> String {
    let family = config.family.model_type;
    let (architecture, model_type) = match config.bit_linear {
        Some(bit_linear) => bit_linear.model_type(),
        None => (family.architecture(), family.name()),
    };
    let dtype = if floats == Format::F32 { "float32" } else { "bfloat16" };
    let mut json = json!({
        "architectures": [architecture],
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
    add_family(config, &mut json);
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

/// Adds the keys that the family's config has beside those of all.
fn add_family(config: &Config, json: &mut Value) {
    let Family { model_type, attention_bias, mlp_bias, no_rope_layers, sliding_window } = &config.family;
    if model_type.knows_attention_bias() {
        json["attention_bias"] = json!(attention_bias);
    }
    if model_type.knows_mlp_bias() {
        json["mlp_bias"] = json!(mlp_bias);
    }
    let layers = 0..config.num_hidden_layers;
    if *model_type == ModelType::SmolLm3 {
        let rotates = layers.clone().map(|layer| u8::from(!no_rope_layers.contains(&layer)));
        json["no_rope_layers"] = json!(rotates.collect::<Vec<_>>());
        // The default of transformers is above the ids of a small vocabulary.
        json["pad_token_id"] = Value::Null;
    }
    if *model_type != ModelType::Llama {
        json["sliding_window"] = json!(sliding_window.as_ref().map(|window| window.size));
    }
    if model_type.knows_layer_types() {
        let slides = |layer| sliding_window.as_ref().is_some_and(|window| window.layers.contains(&layer));
        let name = |layer| if slides(layer) { "sliding_attention" } else { "full_attention" };
        json["layer_types"] = json!(layers.clone().map(name).collect::<Vec<_>>());
        json["use_sliding_window"] = json!(sliding_window.is_some());
        // transformers before 5 reads this instead of layer_types: layers from here on have the window.
        let first = layers.clone().rev().take_while(|&layer| slides(layer)).count();
        json["max_window_layers"] = json!(config.num_hidden_layers - first);
    }
}

pub(super) fn generation_json(config: &Config) -> String {
    pretty(&json!({ "bos_token_id": config.bos_token_id, "eos_token_id": eos_token_id(config) }))
}

fn pretty(json: &Value) -> String {
    format!("{json:#}\n")
}

/// One id as a number, several as a list: every version reads that.
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
pub(crate) fn rope_scaling(config: &Config) -> Value {
    match config.rope.scaling {
        RopeScaling::Default => Value::Null,
        RopeScaling::Linear { factor } => json!({ "rope_type": "linear", "factor": factor }),
        RopeScaling::Dynamic { factor } => json!({ "rope_type": "dynamic", "factor": factor }),
        RopeScaling::Yarn(yarn) => yarn_scaling(&yarn),
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

/// Only the keys that differ from the defaults of transformers: some versions warn of keys they do not know.
fn yarn_scaling(yarn: &Yarn) -> Value {
    let mut json = json!({
        "rope_type": "yarn",
        "factor": yarn.factor,
        "original_max_position_embeddings": yarn.original_max_position_embeddings,
    });
    for (key, value) in [
        ("beta_fast", Some(yarn.beta_fast).filter(|&beta| beta != Yarn::BETA_FAST)),
        ("beta_slow", Some(yarn.beta_slow).filter(|&beta| beta != Yarn::BETA_SLOW)),
        ("attention_factor", yarn.attention_factor),
        ("mscale", yarn.mscale),
        ("mscale_all_dim", yarn.mscale_all_dim),
    ] {
        if let Some(value) = value {
            json[key] = json!(value);
        }
    }
    if !yarn.truncate {
        json["truncate"] = json!(false);
    }
    json
}
