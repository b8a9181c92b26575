//! A config from the metadata of a GGUF file: the keys of Hugging Face, read as a `config.json` is.

use super::file::{Gguf, gguf};
use super::names;
use crate::config::{BitLinear, Config, WeightScale};
use crate::error::{Error, Result};
use offramp_gguf::Value;
use serde_json::{Map, Value as Json, json};

/// Architectures that run here, and Hugging Face's `model_type` of each.
const ARCHITECTURES: [(&str, &str); 5] =
    [("llama", "llama"), ("qwen2", "qwen2"), ("qwen3", "qwen3"), ("smollm3", "smollm3"), (BITNET, BITNET)];
/// Ternary layers with sub-norms, whose activations are rounded to 8 bits.
pub(crate) const BITNET: &str = "bitnet";
/// Another of bitnet.cpp alone.
const BITNET_CPP: &str = "bitnet-b1.58";

impl Gguf {
    /// The model's config, in Hugging Face's words.
    ///
    /// # Errors
    /// If the architecture is none that runs here, or a key is missing or impossible.
    pub fn config(&self) -> Result<Config> {
        read(self)
    }
}

fn read(file: &Gguf) -> Result<Config> {
    let keys = Keys { file, architecture: architecture(file)? };
    let (heads, width) = (keys.whole("attention.head_count")?, keys.whole("embedding_length")?);
    let head_dim = keys.optional("attention.key_length").map_or(width / heads.max(1), |dim| dim);
    keys.check_rotated(head_dim)?;
    let vocabulary = file.tensor("token_embd.weight").map_or(0, |(_, tensor)| tensor.shape[0] as u64);
    let head_tied = file.tensor("output.weight").is_none();
    let mut config = Map::new();
    let mut put = |key: &str, value: Json| drop(config.insert(key.to_owned(), value));
    put(
        "model_type",
        json!(ARCHITECTURES.iter().find(|known| known.0 == keys.architecture).map(|known| known.1)),
    );
    put("hidden_size", json!(width));
    put("intermediate_size", json!(keys.whole("feed_forward_length")?));
    put("num_hidden_layers", json!(keys.whole("block_count")?));
    put("num_attention_heads", json!(heads));
    put("num_key_value_heads", json!(keys.optional("attention.head_count_kv").unwrap_or(heads)));
    put("head_dim", json!(head_dim));
    put("vocab_size", json!(vocabulary));
    put("max_position_embeddings", json!(keys.whole("context_length")?));
    put("rms_norm_eps", json!(keys.number("attention.layer_norm_rms_epsilon")?));
    put("tie_word_embeddings", json!(head_tied));
    let theta = keys.file_number("rope.freq_base").unwrap_or(10_000.0);
    put("rope_theta", json!(theta));
    put("rope_scaling", keys.scaling(theta, head_dim as usize)?);
    if keys.architecture == "llama" {
        put("attention_bias", json!(file.tensor("blk.0.attn_q.bias").is_some()));
        put("mlp_bias", json!(file.tensor("blk.0.ffn_gate.bias").is_some()));
    }
    if keys.architecture == BITNET {
        // llama.cpp takes SiLU where nothing is said.
        let act = keys.get("hidden_activation").and_then(Value::as_str).unwrap_or("silu");
        put("hidden_act", json!(act));
        put("quantization_config", BitLinear::V1.packed_json(WeightScale::Multiplies));
    }
    for (theirs, ours) in [("bos_token_id", "bos_token_id"), ("eos_token_id", "eos_token_id")] {
        if let Some(id) = file.header().get(&format!("tokenizer.ggml.{ours}")).and_then(Value::as_u64) {
            put(theirs, json!(id));
        }
    }
    if let Some(exits) = keys.own(names::EARLY_EXIT)? {
        put("early_exit", exits);
    }
    Config::from_json(&Json::Object(config).to_string(), file.path())
}

fn architecture(file: &Gguf) -> Result<&str> {
    let found = file.header().get("general.architecture").and_then(Value::as_str);
    let found = found.ok_or_else(|| gguf(file.path(), "it has no key general.architecture"))?;
    let expert = file.header().tensors.iter().any(|tensor| tensor.name.contains("_exps."));
    if expert || !ARCHITECTURES.iter().any(|known| known.0 == found) {
        let known = ARCHITECTURES.map(|known| known.0).join(", ");
        let what = match (expert, found) {
            (true, _) => ", a mixture of experts",
            (_, BITNET_CPP) => ", of bitnet.cpp, whose feed-forward layers square a ReLU",
            _ => "",
        };
        let reason = format!("its architecture is {found}{what}: {known} run here");
        return Err(gguf(file.path(), &reason));
    }
    Ok(found)
}

/// The keys of one architecture.
pub(super) struct Keys<'a> {
    pub(super) file: &'a Gguf,
    architecture: &'a str,
}

impl Keys<'_> {
    pub(super) fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.file.header().get(&self.name(key))
    }

    pub(super) fn wrong(&self, key: &str, found: &str) -> Error {
        gguf(self.file.path(), &format!("its key {key} is {found}"))
    }

    pub(super) fn missing(&self, key: &str) -> Error {
        gguf(self.file.path(), &format!("it has no key {}", self.name(key)))
    }

    /// What a key of ours says.
    pub(super) fn own(&self, key: &str) -> Result<Option<Json>> {
        let Some(value) = self.file.header().get(key) else { return Ok(None) };
        let json = value.as_str().and_then(|text| serde_json::from_str(text).ok());
        json.map(Some).ok_or_else(|| self.wrong(key, "no JSON"))
    }

    /// A whole number. A list, of one number for each layer, must hold the same ones.
    fn optional(&self, key: &str) -> Option<u64> {
        match self.get(key)? {
            Value::Numbers(each) => {
                let first = *each.first()?;
                let same = first >= 0.0 && first.fract() == 0.0 && each.iter().all(|&one| one == first);
                same.then_some(first as u64)
            }
            one => one.as_u64(),
        }
    }

    pub(super) fn whole(&self, key: &str) -> Result<u64> {
        match (self.optional(key), self.get(key)) {
            (Some(number), _) => Ok(number),
            (None, None) => Err(self.missing(key)),
            (None, Some(Value::Numbers(_))) => {
                Err(self.wrong(&self.name(key), "not the same in every layer"))
            }
            (None, Some(other)) => Err(self.wrong(&self.name(key), other.kind())),
        }
    }

    pub(super) fn file_number(&self, key: &str) -> Option<f64> {
        self.get(key).and_then(Value::as_f64).map(nearest)
    }

    fn number(&self, key: &str) -> Result<f64> {
        self.file_number(key).ok_or_else(|| self.missing(key))
    }

    /// All of a head is rotated here.
    fn check_rotated(&self, head_dim: u64) -> Result<()> {
        match self.optional("rope.dimension_count") {
            Some(rotated) if rotated != head_dim => {
                let found = format!("{rotated}, of heads of {head_dim}: whole heads are rotated here");
                Err(self.wrong(&self.name("rope.dimension_count"), &found))
            }
            _ => Ok(()),
        }
    }
}

/// The number that a float of 32 bits was written from: `1e-5`, and not `9.999999747378752e-6`.
fn nearest(number: f64) -> f64 {
    let narrow = number as f32;
    if f64::from(narrow) != number {
        return number;
    }
    narrow.to_string().parse().unwrap_or(number)
}
