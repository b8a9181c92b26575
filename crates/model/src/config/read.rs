//! From the text of a `config.json` to a [`Config`]: every key that matters, nothing guessed.

use super::bit_linear::{AUTOBITLINEAR, BITLINEAR, BITNET, BITSKIP};
use super::defaults::{self, Defaults};
use super::{
    BitLinear, Config, EarlyExit, Quantization, RopeParameters, RopeScaling, WeightScale, quantization,
};
use crate::error::{Error, Result};
use crate::format::Format;
use offramp_files::legible;
use serde_json::{Map, Value};
use std::path::Path;

/// The one size whose absence means another size.
const KEY_HEADS: &str = "num_key_value_heads";

/// One block of the file, and how to name what is in it.
struct Block<'a> {
    map: &'a Map<String, Value>,
    prefix: &'static str, // "" or "rope_scaling."
    origin: &'a Path,
}

pub(super) fn parse(text: &str, origin: &Path) -> Result<Config> {
    let value: Value = serde_json::from_str(text).map_err(|error| {
        Error::json(origin, format!("not JSON: {error}: correct it there, or copy it again"))
    })?;
    let Value::Object(map) = &value else {
        return Err(Error::json(origin, "a config.json holds one JSON object"));
    };
    let block = Block { map, prefix: "", origin };
    block.refuse_what_changes_the_model()?;
    block.refuse_other_names()?;
    let defaults = Defaults::of(map.get("model_type").and_then(Value::as_str));
    let hidden_size = block.own_size("hidden_size", defaults.hidden_size)?;
    let num_attention_heads = block.own_size("num_attention_heads", defaults.num_attention_heads)?;
    let max_position_embeddings = block.size("max_position_embeddings")?.unwrap_or(2048);
    // Rounded where it does not divide, which validate() then says.
    let derived = (hidden_size / num_attention_heads.max(1)).max(1);
    let (bit_linear, quantization) = match block.bit_linear()? {
        Some((bit_linear, packed)) => (Some(bit_linear), packed),
        None => (None, block.quantization()?),
    };
    Ok(Config {
        hidden_size,
        intermediate_size: block.own_size("intermediate_size", defaults.intermediate_size)?,
        num_hidden_layers: block.own_size("num_hidden_layers", defaults.num_hidden_layers)?,
        num_attention_heads,
        num_key_value_heads: match defaults.num_key_value_heads.filter(|_| !map.contains_key(KEY_HEADS)) {
            Some(assumed) => assumed,
            None => block.size(KEY_HEADS)?.unwrap_or(num_attention_heads),
        },
        head_dim: block.size("head_dim")?.unwrap_or(derived),
        vocab_size: block.own_size("vocab_size", defaults.vocab_size)?,
        max_position_embeddings,
        rms_norm_eps: block.number("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps),
        rope: block.rope(max_position_embeddings, defaults.rope_theta)?,
        tie_word_embeddings: block.flag("tie_word_embeddings")?,
        bos_token_id: block.bos_token_id(defaults.bos_token_id)?,
        eos_token_ids: block.eos_token_ids(defaults.eos_token_id)?,
        early_exit: block.early_exit()?,
        bit_linear,
        quantization,
    })
}

impl<'a> Block<'a> {
    /// The value of a key; `null` is as good as absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn fault(&self, key: &str, expected: impl Into<String>) -> Error {
        let found = match self.map.get(key) {
            Some(value) => shortened(value),
            None => "missing".to_owned(),
        };
        let key = format!("{}{key}", self.prefix);
        Error::Config { path: self.origin.to_owned(), key, found, expected: expected.into() }
    }

    fn size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
        size.map(Some).ok_or_else(|| self.fault(key, unquoted(value, "a positive whole number")))
    }

    /// A size that may be missing, but not `null`.
    fn own_size(&self, key: &str, assumed: usize) -> Result<usize> {
        match self.map.contains_key(key) {
            true => self.size(key)?.ok_or_else(|| self.fault(key, "a positive whole number, or left out")),
            false => Ok(assumed),
        }
    }

    fn number(&self, key: &str) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.fault(key, unquoted(value, "a number")))
    }

    fn required_number(&self, key: &str) -> Result<f64> {
        self.number(key)?.ok_or_else(|| self.fault(key, "given, as a number"))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.fault(key, unquoted(value, "true or false")))
    }

    fn token(&self, key: &str, value: &Value) -> Result<u32> {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.fault(key, "a token id, 0 or more"))
    }

    /// What would make the same weights mean something else.
    fn refuse_what_changes_the_model(&self) -> Result<()> {
        let model_type = self.get("model_type").and_then(Value::as_str);
        if !model_type.is_some_and(|found| ["llama", BITNET, BITSKIP].contains(&found)) {
            let expected = "\"llama\", \"bitnet\" or \"bitskip\", the architectures that run here";
            return Err(self.fault("model_type", expected));
        }
        // What transformers' BitNet assumes where the file does not say is another.
        let said = model_type != Some(BITNET) || self.get("hidden_act").is_some();
        if !said || self.get("hidden_act").is_some_and(|act| act.as_str() != Some("silu")) {
            let expected = "\"silu\", the one activation that runs here (relu2, which a bitnet has unless it says \
                            otherwise, is not supported): choose a model with silu";
            return Err(self.fault("hidden_act", expected));
        }
        self.refuse_heads_that_turn_in_part()?;
        for key in ["attention_bias", "mlp_bias"] {
            if self.flag(key)? {
                return Err(self.fault(key, "false: layers with biases are not supported"));
            }
        }
        Ok(())
    }

    /// Sizes under the names that they have in other formats.
    fn refuse_other_names(&self) -> Result<()> {
        match defaults::misnamed(self.map) {
            None => Ok(()),
            Some((name, key)) => {
                Err(self.fault(name, format!("called {key}, as Hugging Face's config.json has it")))
            }
        }
    }

    fn refuse_heads_that_turn_in_part(&self) -> Result<()> {
        match self.number("partial_rotary_factor")? {
            None | Some(1.0) => Ok(()),
            Some(_) => Err(self.fault("partial_rotary_factor", "1: heads turn whole")),
        }
    }

    fn bos_token_id(&self, assumed: u32) -> Result<Option<u32>> {
        match self.map.get("bos_token_id") {
            None => Ok(Some(assumed)),
            Some(Value::Null) => Ok(None),
            Some(id) => self.token("bos_token_id", id).map(Some),
        }
    }

    fn eos_token_ids(&self, assumed: u32) -> Result<Vec<u32>> {
        match self.map.get("eos_token_id") {
            None => Ok(vec![assumed]),
            Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(ids)) => ids.iter().map(|id| self.token("eos_token_id", id)).collect(),
            Some(id) => Ok(vec![self.token("eos_token_id", id)?]),
        }
    }

    fn early_exit(&self) -> Result<Option<EarlyExit>> {
        let Some(value) = self.get("early_exit") else { return Ok(None) };
        let block = serde_json::from_value(value.clone());
        block.map(Some).map_err(|error| {
            self.fault(
                "early_exit",
                format!("the block that offramp writes ({})", legible(&error.to_string())),
            )
        })
    }

    /// Which of the low-bit family it is, if any: by its `model_type`, and what its `quantization_config` says; and
    /// what its layers are, if they are packed.
    fn bit_linear(&self) -> Result<Option<(BitLinear, Option<Quantization>)>> {
        let model_type = self.get("model_type").and_then(Value::as_str);
        if !model_type.is_some_and(|found| [BITNET, BITSKIP].contains(&found)) {
            return Ok(None);
        }
        let Some(block) = self.block("quantization_config", "quantization_config.")? else {
            return Err(self.fault("quantization_config", "given: it says how activations are rounded"));
        };
        let method = block.get("quant_method").and_then(Value::as_str);
        if method != model_type {
            return Err(block.fault("quant_method", format!("{}, as model_type", model_type.unwrap_or(""))));
        }
        let bit_linear = match (model_type, block.get("activation_bits").and_then(Value::as_u64)) {
            (Some(BITNET), _) => BitLinear::V1,
            (_, Some(4)) => BitLinear::V2,
            (_, Some(8)) => BitLinear::V3,
            _ => return Err(block.fault("activation_bits", "4 or 8")),
        };
        // Whatever it says beside, the weights and what is made of them would be others.
        let json = bit_linear.json();
        for (key, expected) in json.as_object().into_iter().flatten() {
            // Where norms are not asked for, their constant is nobody's.
            let nobodys = key == "rms_norm_eps";
            let packing = ["linear_class", "quantization_mode"].contains(&&key[..]);
            if !nobodys && !packing && block.get(key) != Some(expected).filter(|value| !value.is_null()) {
                return Err(block.fault(key, expected.to_string()));
            }
        }
        let weight_scale = block.weight_scale()?;
        let layers = |_| Quantization { layers: Format::Ternary, head: Format::F32, weight_scale };
        Ok(Some((bit_linear, weight_scale.map(layers))))
    }

    /// Of the low-bit family's `quantization_config`: what stands beside packed weights, or none where the weights are
    /// those that ternary ones are made of. What is missing means what it means to transformers.
    fn weight_scale(&self) -> Result<Option<WeightScale>> {
        let text = |key, missing| self.get(key).map_or(Some(missing), Value::as_str);
        let mode = text("quantization_mode", "offline");
        // Rotated folders that are not packed name no class.
        let missing = if mode == Some("online") { AUTOBITLINEAR } else { BITLINEAR };
        match (text("linear_class", missing), mode) {
            (Some(BITLINEAR), _) => Ok(Some(WeightScale::Divides)),
            (Some(AUTOBITLINEAR), Some("offline")) => Ok(Some(WeightScale::Multiplies)),
            (Some(AUTOBITLINEAR), Some("online")) => Ok(None),
            (Some(AUTOBITLINEAR), _) => Err(self.fault("quantization_mode", "online or offline")),
            _ => Err(self.fault("linear_class", "bitlinear or autobitlinear")),
        }
    }

    fn quantization(&self) -> Result<Option<Quantization>> {
        let Some(block) = self.block("quantization_config", "quantization_config.")? else { return Ok(None) };
        match block.get("quant_method").and_then(Value::as_str) {
            Some(quantization::METHOD) => (),
            // Layers of BitNet in a Llama: without the norms that a bitnet has before o_proj and down_proj.
            Some(BITNET) => {
                let expected = "beside model_type bitnet: a llama with bitnet's layers does not run here, take the \
                                float model that it was made from";
                return Err(block.fault("quant_method", expected));
            }
            _ => {
                let expected = "\"offramp\", or there is no such block: take the float model that these weights were \
                                made from, and narrow it with `offramp quantize`";
                return Err(block.fault("quant_method", expected));
            }
        }
        let format = |key| {
            let format = block.get(key).and_then(|part| part["format"].as_str()?.parse::<Format>().ok());
            let format = format.filter(|&format| format != Format::Ternary);
            let expected = || "a block whose format is f32, bf16, int8 or int4";
            format.ok_or_else(|| block.fault(key, expected()))
        };
        let quantization = Quantization::of(format("layers")?, format("head")?);
        let quantization = quantization.ok_or_else(|| block.fault("layers", "int8 or int4, or the head"))?;
        let json = quantization.json();
        // Nothing less, nothing else: what it says is how the bytes will be read.
        let mut keys = json.as_object().into_iter().flatten().map(|(key, _)| key).chain(block.map.keys());
        match keys.find(|&key| block.map.get(key) != json.get(key)) {
            None => Ok(Some(quantization)),
            Some(key) => {
                let expected = json.get(key).map_or("absent".to_owned(), Value::to_string);
                Err(block.fault(key, format!("{expected}: quantize the float model again")))
            }
        }
    }

    /// Rotary positions from `rope_parameters` (transformers 5), `rope_scaling` beside `rope_theta`
    /// (before it), or both, as [`Config::to_json`] writes them.
    fn rope(&self, max_position_embeddings: usize, assumed: f64) -> Result<RopeParameters> {
        let theta = self.number("rope_theta")?;
        let read = |key, prefix| -> Result<Option<RopeParameters>> {
            let Some(block) = self.block(key, prefix)? else { return Ok(None) };
            Ok(Some(RopeParameters {
                theta: block.number("rope_theta")?.or(theta).unwrap_or(assumed),
                scaling: block.rope_scaling(max_position_embeddings)?,
            }))
        };
        let new = read("rope_parameters", "rope_parameters.")?;
        let old = read("rope_scaling", "rope_scaling.")?;
        // transformers 4 reads one set of keys and transformers 5 the other: they must not differ.
        if new.is_some() && old.is_some() && new != old {
            return Err(self.fault("rope_scaling", "the same as rope_parameters says: keep one of the two"));
        }
        let plain = || RopeParameters { theta: theta.unwrap_or(assumed), scaling: RopeScaling::Default };
        let rope = new.or(old).unwrap_or_else(plain);
        match theta {
            Some(theta) if theta != rope.theta => {
                Err(self.fault("rope_theta", "what the rope block beside it says: keep one of the two"))
            }
            _ => Ok(rope),
        }
    }

    fn block(&self, key: &str, prefix: &'static str) -> Result<Option<Block<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) if map.is_empty() => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Block { map, prefix, origin: self.origin })),
            Some(_) => Err(self.fault(key, "a block of keys, or null")),
        }
    }

    fn rope_scaling(&self, max_position_embeddings: usize) -> Result<RopeScaling> {
        let key = if self.get("rope_type").is_some() { "rope_type" } else { "type" };
        self.refuse_heads_that_turn_in_part()?;
        match self.get(key).map(Value::as_str) {
            None | Some(Some("default")) => Ok(RopeScaling::Default),
            Some(Some("linear")) => Ok(RopeScaling::Linear { factor: self.required_number("factor")? }),
            Some(Some("llama3")) => Ok(RopeScaling::Llama3 {
                factor: self.required_number("factor")?,
                low_freq_factor: self.required_number("low_freq_factor")?,
                high_freq_factor: self.required_number("high_freq_factor")?,
                original_max_position_embeddings: self
                    .size("original_max_position_embeddings")?
                    .unwrap_or(max_position_embeddings),
            }),
            Some(_) => {
                Err(self.fault(key, "\"default\", \"linear\" or \"llama3\": no other scaling is supported"))
            }
        }
    }
}

/// What a value must be, where a string of it may have been meant.
fn unquoted(value: &Value, expected: &str) -> String {
    let quotes = value.as_str().is_some_and(|text| serde_json::from_str::<Value>(text).is_ok());
    format!("{expected}{}", if quotes { ", without quotes" } else { "" })
}

/// A value in one short line.
fn shortened(value: &Value) -> String {
    let text = legible(&value.to_string());
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
