//! Models of a few dozen values, in each form that their tensors may have.

use offramp_model::{Config, TensorSpec};
use std::path::Path;

/// The least sizes that every form allows; the words in capitals make the form.
const LEAST: &str = r#"{
  "model_type": "MODEL", "hidden_act": "silu", "hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1,
  "num_attention_heads": 2, "num_key_value_heads": KV, "head_dim": 2, "vocab_size": 3,
  "max_position_embeddings": 8, "tie_word_embeddings": TIED EXTRA
}"#;

/// A block of offramp's own quantization.
fn strips(layers: &str, head: &str) -> String {
    let part = |format: &str| match format {
        "int8" => r#"{"format": "int8", "bits": 8, "block_size": 64, "scales": "bf16"}"#.to_owned(),
        "int4" => r#"{"format": "int4", "bits": 4, "block_size": 32, "scales": "bf16"}"#.to_owned(),
        float => format!(r#"{{"format": "{float}"}}"#),
    };
    let (layers, head) = (part(layers), part(head));
    format!(
        r#", "quantization_config": {{"quant_method": "offramp", "layers": {layers}, "head": {head}, "strip_rows": 32}}"#
    )
}

/// Floats, 8 and 4 bits, ternary weights packed and to be made, rotated ones; families with biases, norms and
/// windows.
///
/// # Panics
/// If one of them is no config any more.
pub fn configs() -> Vec<Config> {
    let bitnet = |class: &str, mode: &str| {
        format!(
            r#", "quantization_config": {{"quant_method": "bitnet", "linear_class": "{class}",
                "quantization_mode": "{mode}", "use_rms_norm": false, "rms_norm_eps": 1e-6,
                "modules_to_not_convert": null}}"#
        )
    };
    let bitskip = r#", "quantization_config": {"quant_method": "bitskip", "activation_bits": 4, "hadamard": true,
        "quantization_mode": "online"}"#;
    let window = r#", "attention_bias": true, "use_sliding_window": true, "sliding_window": 2,
        "max_window_layers": 0"#;
    let all = [
        ("llama", "false", String::new()),
        ("llama", "true", String::new()),
        ("llama", "false", strips("int8", "int8")),
        ("llama", "true", strips("int4", "bf16")),
        ("bitnet", "false", bitnet("bitlinear", "offline")),
        ("bitnet", "true", bitnet("autobitlinear", "offline")),
        ("bitnet", "true", bitnet("autobitlinear", "online")),
        ("bitskip", "true", bitskip.to_owned()),
        ("qwen2", "false", String::new()),
        ("qwen3", "true", window.to_owned()),
        ("smollm3", "false", r#", "mlp_bias": true, "no_rope_layer_interval": 1"#.to_owned()),
        ("llama", "true", r#", "rope_scaling": {"type": "yarn", "factor": 4}"#.to_owned()),
    ];
    let config = |(model, tied, extra): (&str, &str, String)| {
        let kv_heads = if model == "bitnet" { "2" } else { "1" }; // packed rows come in fours
        let text = LEAST.replace("MODEL", model).replace("TIED", tied).replace("KV", kv_heads);
        let text = text.replace(" EXTRA", &extra);
        Config::from_json(&text, Path::new("config.json")).expect("a config")
    };
    all.into_iter().map(config).collect()
}

/// A safetensors file with these tensors as `f32`, every value 0.5.
///
/// # Panics
/// If a name cannot stand in JSON.
pub fn shard(specs: &[TensorSpec]) -> Vec<u8> {
    let mut end = 0;
    let entries = specs.iter().map(|spec| {
        let start = end;
        end += 4 * spec.len();
        assert!(!spec.name.contains(['"', '\\']), "{}", spec.name);
        format!(
            r#""{}":{{"dtype":"F32","shape":{:?},"data_offsets":[{start},{end}]}}"#,
            spec.name, spec.shape
        )
    });
    let mut header = format!("{{{}}}", entries.collect::<Vec<_>>().join(","));
    header.push_str(&" ".repeat(header.len().next_multiple_of(8) - header.len()));
    let values = (0..end / 4).flat_map(|_| 0.5f32.to_le_bytes());
    (header.len() as u64).to_le_bytes().into_iter().chain(header.into_bytes()).chain(values).collect()
}
