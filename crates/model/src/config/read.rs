//! From the text of a `config.json` to a [`Config`]. Every key that changes the model is read, none is
//! guessed.

mod family;
mod quantization;
mod rope;

use super::bit_linear::BITNET;
use super::defaults::{self, Defaults};
use super::{Config, EarlyExit};
use crate::error::{Error, Result};
use offramp_files::legible;
use serde_json::{Map, Value};
use std::path::Path;

/// The only size whose default is another size.
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
    let model_type = block.model_type()?;
    block.refuse_what_changes_the_model()?;
    block.refuse_what_goes_further()?;
    block.refuse_other_names()?;
    let defaults = Defaults::of(map.get("model_type").and_then(Value::as_str));
    let hidden_size = block.own_size("hidden_size", defaults.hidden_size)?;
    let num_attention_heads = block.own_size("num_attention_heads", defaults.num_attention_heads)?;
    let num_hidden_layers = block.own_size("num_hidden_layers", defaults.num_hidden_layers)?;
    let max_position_embeddings = block.size("max_position_embeddings")?;
    let max_position_embeddings = max_position_embeddings.unwrap_or(defaults.max_position_embeddings);
    // Rounded down if it does not divide; validate() refuses that where transformers does.
    let derived = (hidden_size / num_attention_heads.max(1)).max(1);
    let (bit_linear, quantization) = match block.bit_linear()? {
        Some((bit_linear, packed)) => (Some(bit_linear), packed),
        None => (None, block.quantization()?),
    };
    Ok(Config {
        hidden_size,
        intermediate_size: block.own_size("intermediate_size", defaults.intermediate_size)?,
        num_hidden_layers,
        num_attention_heads,
        num_key_value_heads: match defaults.num_key_value_heads.filter(|_| !map.contains_key(KEY_HEADS)) {
            Some(assumed) => assumed,
            None => block.size(KEY_HEADS)?.unwrap_or(num_attention_heads),
        },
        head_dim: match defaults.head_dim.filter(|_| !map.contains_key("head_dim")) {
            Some(assumed) => assumed,
            None => block.size("head_dim")?.unwrap_or(derived),
        },
        vocab_size: block.own_size("vocab_size", defaults.vocab_size)?,
        max_position_embeddings,
        rms_norm_eps: block.number("rms_norm_eps")?.unwrap_or(defaults.rms_norm_eps),
        rope: block.rope(&rope::Beside { max_position_embeddings, theta: defaults.rope_theta })?,
        family: block.family(model_type, num_hidden_layers)?,
        tie_word_embeddings: block.flag_or("tie_word_embeddings", defaults.tie_word_embeddings)?,
        bos_token_id: block.bos_token_id(defaults.bos_token_id)?,
        eos_token_ids: block.eos_token_ids(defaults.eos_token_id)?,
        early_exit: block.early_exit()?,
        bit_linear,
        quantization,
    })
}

impl<'a> Block<'a> {
    /// The value of a key; `null` counts as absent.
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

    fn flag_or(&self, key: &str, assumed: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(assumed) };
        value.as_bool().ok_or_else(|| self.fault(key, unquoted(value, "true or false")))
    }

    fn token(&self, key: &str, value: &Value) -> Result<u32> {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.fault(key, "a token id, 0 or more"))
    }

    /// Refuses keys with which the same weights would compute something else.
    fn refuse_what_changes_the_model(&self) -> Result<()> {
        let model_type = self.get("model_type").and_then(Value::as_str);
        // The default of transformers' BitNet is another activation.
        let said = model_type != Some(BITNET) || self.get("hidden_act").is_some();
        if !said || self.get("hidden_act").is_some_and(|act| act.as_str() != Some("silu")) {
            let expected = "\"silu\", the one activation that runs here (relu2, which a bitnet has unless it says \
                            otherwise, is not supported): choose a model with silu";
            return Err(self.fault("hidden_act", expected));
        }
        self.refuse_partly_rotated_heads()
    }

    /// Refuses sizes under the names of other formats.
    fn refuse_other_names(&self) -> Result<()> {
        match defaults::misnamed(self.map) {
            None => Ok(()),
            Some((name, key)) => {
                Err(self.fault(name, format!("called {key}, as Hugging Face's config.json has it")))
            }
        }
    }

    fn refuse_partly_rotated_heads(&self) -> Result<()> {
        match self.number("partial_rotary_factor")? {
            None | Some(1.0) => Ok(()),
            Some(_) => Err(self.fault("partial_rotary_factor", "1: heads are rotated whole")),
        }
    }

    fn bos_token_id(&self, assumed: Option<u32>) -> Result<Option<u32>> {
        match self.map.get("bos_token_id") {
            None => Ok(assumed),
            Some(Value::Null) => Ok(None),
            Some(id) => self.token("bos_token_id", id).map(Some),
        }
    }

    fn eos_token_ids(&self, assumed: Option<u32>) -> Result<Vec<u32>> {
        match self.map.get("eos_token_id") {
            None => Ok(assumed.into_iter().collect()),
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

    fn block(&self, key: &str, prefix: &'static str) -> Result<Option<Block<'a>>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) if map.is_empty() => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Block { map, prefix, origin: self.origin })),
            Some(_) => Err(self.fault(key, "a block of keys, or null")),
        }
    }
}

/// What a value must be, with a hint if it is a number in quotes.
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
