//! Hugging Face's `config.json` and ours, read and written key by key.

use super::{Config, EarlyExit, RopeScaling};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::path::Path;

/// The keys of one JSON object, each read with an error that names it.
struct Keys<'a> {
    object: &'a Map<String, Value>,
    origin: &'a Path,
    prefix: &'static str,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn wrong<T>(&self, key: &str, found: impl ToString, expected: &str) -> Result<T> {
        let key = format!("{}{key}", self.prefix);
        let (path, found) = (self.origin.to_path_buf(), found.to_string());
        Err(Error::Config { path, key, found, expected: expected.to_string() })
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.map_or_else(|| self.wrong(key, "missing", "a value"), Ok)
    }

    fn size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().map(usize::try_from) {
            Some(Ok(size)) => Ok(Some(size)),
            _ => self.wrong(key, value, "a whole number"),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map_or_else(|| self.wrong(key, value, "a number"), |number| Ok(Some(number)))
    }

    fn text(&self, key: &str) -> Result<Option<&str>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map_or_else(|| self.wrong(key, value, "a text"), |text| Ok(Some(text)))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value.as_bool().map_or_else(|| self.wrong(key, value, "true or false"), Ok)
    }

    /// One token id or a list of them.
    fn tokens(&self, key: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            value => id(value).map(|id| vec![id]),
        };
        ids.map_or_else(|| self.wrong(key, value, "a token id or a list of them"), Ok)
    }

    fn object(&self, key: &'static str, prefix: &'static str) -> Result<Option<Keys<'_>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Keys { object, origin: self.origin, prefix })),
            Some(value) => self.wrong(key, value, "an object"),
        }
    }
}

/// Reads everything but checks no sizes: [`Config::validate`] does.
pub(super) fn parse(text: &str, origin: &Path) -> Result<Config> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Error::file(origin, format!("is not JSON ({error}): is the file whole?")))?;
    let Value::Object(object) = &value else {
        return Err(Error::file(origin, "holds no JSON object: is it a model's config.json?"));
    };
    let keys = Keys { object, origin, prefix: "" };
    refuse_what_we_do_not_run(&keys)?;
    let size = |key: &str| keys.required(key, keys.size(key)?);
    let (hidden_size, heads) = (size("hidden_size")?, size("num_attention_heads")?);
    let head_dim = match keys.size("head_dim")? {
        Some(head_dim) => head_dim,
        None if heads > 0 && hidden_size % heads == 0 => hidden_size / heads,
        None => {
            return keys.wrong(
                "num_attention_heads",
                heads,
                &format!("a divisor of hidden_size ({hidden_size})"),
            );
        }
    };
    let max_position_embeddings = keys.size("max_position_embeddings")?.unwrap_or(2048);
    let (rope_theta, rope_scaling) = rope(&keys, max_position_embeddings)?;
    Ok(Config {
        hidden_size,
        intermediate_size: size("intermediate_size")?,
        num_hidden_layers: size("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: keys.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        vocab_size: size("vocab_size")?,
        max_position_embeddings,
        rms_norm_eps: keys.number("rms_norm_eps")?.unwrap_or(1e-6),
        rope_theta,
        rope_scaling,
        tie_word_embeddings: keys.flag("tie_word_embeddings")?,
        initializer_range: keys.number("initializer_range")?.unwrap_or(0.02),
        bos_token_id: keys.tokens("bos_token_id")?.first().copied(),
        eos_token_ids: keys.tokens("eos_token_id")?,
        early_exit: early_exit(&keys)?,
    })
}

fn refuse_what_we_do_not_run(keys: &Keys<'_>) -> Result<()> {
    let model_type = keys.required("model_type", keys.text("model_type")?)?;
    if model_type != "llama" {
        return keys.wrong("model_type", model_type, "llama: no other architecture can be run");
    }
    if let Some(activation) = keys.text("hidden_act")?.filter(|&activation| activation != "silu") {
        return keys.wrong("hidden_act", activation, "silu: no other activation can be run");
    }
    for key in ["attention_bias", "mlp_bias"] {
        if keys.flag(key)? {
            return keys.wrong(key, true, "false: biases are not supported");
        }
    }
    if let Some(value) = keys.get("quantization_config") {
        let method = value.get("quant_method").and_then(Value::as_str).unwrap_or("present");
        return keys.wrong("quantization_config", method, "none: only float checkpoints can be read");
    }
    Ok(())
}

/// `rope_parameters` as transformers 5 writes them, or the older `rope_theta` and `rope_scaling`.
fn rope(keys: &Keys<'_>, context: usize) -> Result<(f64, RopeScaling)> {
    let theta = keys.number("rope_theta")?;
    let new = keys.object("rope_parameters", "rope_parameters.")?;
    let old = keys.object("rope_scaling", "rope_scaling.")?;
    let Some(rope) = new.or(old) else { return Ok((theta.unwrap_or(10_000.0), RopeScaling::Default)) };
    let theta = rope.number("rope_theta")?.or(theta).unwrap_or(10_000.0);
    let kind = match rope.text("rope_type")? {
        Some(kind) => kind,
        None => rope.text("type")?.unwrap_or("default"),
    };
    let factor = |key: &str| match rope.required(key, rope.number(key)?)? {
        factor if factor > 0.0 && factor.is_finite() => Ok(factor),
        factor => rope.wrong(key, factor, "a number above 0"),
    };
    let scaling = match kind {
        "default" => RopeScaling::Default,
        "linear" => RopeScaling::Linear { factor: factor("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: factor("factor")?,
            low_freq_factor: factor("low_freq_factor")?,
            high_freq_factor: factor("high_freq_factor")?,
            original_max_position_embeddings: match rope.size("original_max_position_embeddings")? {
                Some(0) => return rope.wrong("original_max_position_embeddings", 0, "at least 1"),
                Some(positions) => positions,
                None => context,
            },
        },
        other => return rope.wrong("rope_type", other, "default, linear or llama3"),
    };
    if let RopeScaling::Llama3 { low_freq_factor: low, high_freq_factor: high, .. } = scaling
        && low >= high
    {
        return rope.wrong("low_freq_factor", low, &format!("below high_freq_factor ({high})"));
    }
    Ok((theta, scaling))
}

fn early_exit(keys: &Keys<'_>) -> Result<Option<EarlyExit>> {
    let Some(value) = keys.get("early_exit") else { return Ok(None) };
    match serde_json::from_value(value.clone()) {
        Ok(early_exit) => Ok(Some(early_exit)),
        Err(error) => keys.wrong("early_exit", error, "the block that `offramp train` writes"),
    }
}

/// Both spellings of the rotary settings, so that transformers 4 and 5 read the same model.
pub(super) fn write(config: &Config) -> String {
    let scaling = match config.rope_scaling {
        RopeScaling::Default => None,
        RopeScaling::Linear { factor } => Some(json!({"rope_type": "linear", "factor": factor})),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor,
            high_freq_factor,
            original_max_position_embeddings,
        } => Some(json!({
            "rope_type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        })),
    };
    let mut parameters = scaling.clone().unwrap_or_else(|| json!({"rope_type": "default"}));
    parameters["rope_theta"] = json!(config.rope_theta);
    let eos = match &config.eos_token_ids[..] {
        [] => Value::Null,
        [one] => json!(one),
        several => json!(several),
    };
    let mut value = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": eos,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "hidden_size": config.hidden_size,
        "initializer_range": config.initializer_range,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_position_embeddings,
        "mlp_bias": false,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "num_key_value_heads": config.num_key_value_heads,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_parameters": parameters,
        "rope_scaling": scaling,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": "float32",
        "use_cache": true,
        "vocab_size": config.vocab_size,
    });
    if let Some(early_exit) = &config.early_exit {
        value["early_exit"] = json!(early_exit);
    }
    let mut text = serde_json::to_string_pretty(&value).expect("plain values have a JSON form");
    text.push('\n');
    text
}
