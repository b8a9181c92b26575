//! Keys that a `config.json` may leave out: `transformers` has a default for each family, and we take the
//! same.
//!
//! In a file that somebody wrote by hand a missing key is often a mistake. If the default does not fit the
//! rest of the folder, the error names the key.

use crate::error::Error;
use crate::text_file::read_text;
use offramp_files::legible;
use serde_json::{Map, Value};
use std::path::Path;

/// The defaults of one family.
pub(super) struct Defaults {
    pub(super) hidden_size: usize,
    pub(super) intermediate_size: usize,
    pub(super) num_hidden_layers: usize,
    pub(super) num_attention_heads: usize,
    pub(super) num_key_value_heads: Option<usize>, // none: as many as there are query heads
    pub(super) head_dim: Option<usize>,            // none: hidden_size / num_attention_heads
    pub(super) vocab_size: usize,
    pub(super) max_position_embeddings: usize,
    pub(super) rms_norm_eps: f64,
    pub(super) rope_theta: f64,
    pub(super) tie_word_embeddings: bool,
    pub(super) bos_token_id: Option<u32>,
    pub(super) eos_token_id: Option<u32>,
}

/// Its `LlamaConfig`.
const LLAMA: Defaults = Defaults {
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: None,
    head_dim: None,
    vocab_size: 32000,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-6,
    rope_theta: 10_000.0,
    tie_word_embeddings: false,
    bos_token_id: Some(1),
    eos_token_id: Some(2),
};

/// Its `MistralConfig`.
const MISTRAL: Defaults = Defaults {
    intermediate_size: 14336,
    num_key_value_heads: Some(8),
    max_position_embeddings: 131_072,
    ..LLAMA
};

/// Its `Qwen2Config`.
const QWEN2: Defaults = Defaults {
    intermediate_size: 22016,
    num_key_value_heads: Some(32),
    vocab_size: 151_936,
    max_position_embeddings: 32768,
    bos_token_id: None,
    eos_token_id: None,
    ..LLAMA
};

/// Its `Qwen3Config`.
const QWEN3: Defaults = Defaults { head_dim: Some(128), ..QWEN2 };

/// Its `SmolLM3Config`.
const SMOLLM3: Defaults = Defaults {
    hidden_size: 2048,
    intermediate_size: 11008,
    num_hidden_layers: 36,
    num_attention_heads: 16,
    num_key_value_heads: Some(4),
    head_dim: None,
    vocab_size: 128_256,
    max_position_embeddings: 32768,
    rms_norm_eps: 1e-6,
    rope_theta: 2_000_000.0,
    tie_word_embeddings: true,
    bos_token_id: Some(128_000),
    eos_token_id: Some(128_001),
};

/// Its `BitNetConfig`.
const BITNET: Defaults = Defaults {
    hidden_size: 2560,
    intermediate_size: 6912,
    num_hidden_layers: 30,
    num_attention_heads: 20,
    num_key_value_heads: Some(5),
    head_dim: None,
    vocab_size: 128_256,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 500_000.0,
    tie_word_embeddings: false,
    bos_token_id: Some(128_000),
    eos_token_id: Some(128_001),
};

/// Names of the keys in other formats. `transformers` ignores these and takes its default.
const ELSEWHERE: [(&str, &[&str]); 8] = [
    ("hidden_size", &["dim", "d_model", "n_embd", "n_embed"]),
    ("intermediate_size", &["ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "intermediate_dim"]),
    ("num_hidden_layers", &["n_layers", "n_layer", "num_layers"]),
    ("num_attention_heads", &["n_heads", "n_head", "num_heads"]),
    ("num_key_value_heads", &["n_kv_heads", "n_head_kv", "num_kv_heads"]),
    ("vocab_size", &["n_vocab", "vocabulary_size"]),
    ("max_position_embeddings", &["max_seq_len", "max_sequence_length", "n_positions", "n_ctx"]),
    ("rms_norm_eps", &["norm_eps", "layer_norm_eps", "layer_norm_epsilon", "rms_norm_epsilon"]),
];

impl Defaults {
    pub(super) fn of(model_type: Option<&str>) -> &'static Self {
        match model_type {
            Some(super::bit_linear::BITNET) => &BITNET,
            Some("mistral") => &MISTRAL,
            Some("qwen2") => &QWEN2,
            Some("qwen3") => &QWEN3,
            Some("smollm3") => &SMOLLM3,
            _ => &LLAMA,
        }
    }

    /// Sizes that the file does not give, with their defaults: those of every model, and those that `tensor`
    /// depends on.
    fn assumed(file: &Map<String, Value>, tensor: &str) -> Vec<(&'static str, String)> {
        let this = Self::of(file.get("model_type").and_then(Value::as_str));
        let mut all = vec![
            ("hidden_size", this.hidden_size.to_string()),
            ("intermediate_size", this.intermediate_size.to_string()),
            ("num_hidden_layers", this.num_hidden_layers.to_string()),
            ("num_attention_heads", this.num_attention_heads.to_string()),
            ("vocab_size", this.vocab_size.to_string()),
        ];
        if tensor.contains("k_proj") || tensor.contains("v_proj") {
            let heads = this.num_key_value_heads.map(|heads| heads.to_string());
            all.push(("num_key_value_heads", heads.unwrap_or_else(|| "that of all heads".to_owned())));
        }
        if tensor.contains("q_proj") || tensor.contains("o_proj") {
            let width = this.head_dim.map(|width| width.to_string());
            all.push(("head_dim", width.unwrap_or_else(|| "hidden_size / num_attention_heads".to_owned())));
        }
        all.retain(|(key, _)| !file.contains_key(*key));
        all
    }
}

/// A key under another name, and its name here, if that is missing.
pub(super) fn misnamed(file: &Map<String, Value>) -> Option<(&'static str, &'static str)> {
    let missing = ELSEWHERE.iter().filter(|(key, _)| !file.contains_key(*key));
    missing
        .flat_map(|(key, names)| names.iter().map(|name| (*name, *key)))
        .find(|(name, _)| file.contains_key(*name))
}

/// Adds to an error about sizes those that the file does not give.
pub(super) fn explained(error: Error, text: &str) -> Error {
    let assumed = object(text).map_or(Vec::new(), |file| Defaults::assumed(&file, ""));
    match (error, &assumed[..]) {
        (Error::Config { path, key, found, expected }, [_, ..]) => {
            let expected = format!("{expected}; {}, which is what transformers assumes", told(&assumed));
            Error::Config { path, key, found, expected }
        }
        (error, _) => error,
    }
}

/// Adds to an error about weights the sizes that the config does not give.
pub(crate) fn blamed(error: Error, config: &Path) -> Error {
    let tensor = match &error {
        Error::MissingTensor { tensor, .. }
        | Error::Shape { tensor, .. }
        | Error::UnexpectedTensor { tensor, .. } => legible(tensor),
        _ => return error,
    };
    let file = read_text(config).ok().and_then(|text| object(&text));
    let assumed = file.map_or(Vec::new(), |file| Defaults::assumed(&file, &tensor));
    if assumed.is_empty() {
        return error;
    }
    let keys: Vec<_> = assumed.iter().map(|(key, _)| *key).collect();
    let reason = format!(
        "{}, which is what transformers assumes, and not what the weights have (tensor {tensor}): give {}",
        told(&assumed),
        keys.join(" and "),
    );
    Error::json(config, reason)
}

/// `hidden_size is not given and taken for 4096`.
fn told(assumed: &[(&str, String)]) -> String {
    let one = |(key, value): &(&str, String)| format!("{key} is not given and taken for {value}");
    assumed.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn object(text: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(text).ok()
}
