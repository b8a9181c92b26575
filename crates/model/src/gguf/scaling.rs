//! RoPE scaling in llama.cpp's keys, which mean what its converters write them from.
//!
//! llama.cpp multiplies cosines and sines by `(1 + 0.1 ln factor) · attn_factor`. Its converters write
//! transformers' `attention_factor` as `yarn_attn_factor`, which llama.cpp replaces by that product, and
//! `mscale_all_dim` as `yarn_log_multiplier`, `beta_fast` and `beta_slow` as their namesakes, which it reads
//! for other architectures.

use super::config::Keys;
use super::file::gguf;
use super::names::{ROPE_FREQS, ROPE_SCALING};
use super::rope;
use crate::config::{Config, RopeScaling, Yarn, rope_scaling};
use crate::error::Result;
use offramp_gguf::Value;
use serde_json::{Value as Json, json};

const TYPE: &str = "rope.scaling.type";
const FACTOR: &str = "rope.scaling.factor";
const ORIGINAL: &str = "rope.scaling.original_context_length";
const ATTN_FACTOR: &str = "rope.scaling.attn_factor";
const EXT_FACTOR: &str = "rope.scaling.yarn_ext_factor";
const YARN_ATTN_FACTOR: &str = "rope.scaling.yarn_attn_factor";
const BETA_FAST: &str = "rope.scaling.yarn_beta_fast";
const BETA_SLOW: &str = "rope.scaling.yarn_beta_slow";
const LOG_MULTIPLIER: &str = "rope.scaling.yarn_log_multiplier";

impl Keys<'_> {
    /// The `rope_scaling` of a config.
    pub(super) fn scaling(&self, theta: f64, head_dim: usize) -> Result<Json> {
        if let Some(scaling) = self.own(ROPE_SCALING)? {
            return Ok(scaling);
        }
        if let Some(factors) = self.file.values(ROPE_FREQS) {
            return match rope::scaling(&factors, theta, head_dim) {
                Some(RopeScaling::Llama3 {
                    factor,
                    low_freq_factor,
                    high_freq_factor,
                    original_max_position_embeddings,
                }) => Ok(json!({
                    "rope_type": "llama3", "factor": factor, "low_freq_factor": low_freq_factor,
                    "high_freq_factor": high_freq_factor,
                    "original_max_position_embeddings": original_max_position_embeddings,
                })),
                _ => Err(gguf(
                    self.file.path(),
                    "its rope_freqs.weight are the factors of no scaling that is known",
                )),
            };
        }
        let kind = self.get(TYPE).and_then(Value::as_str).unwrap_or("none");
        let factor = self.file_number(FACTOR).or(self.file_number("rope.scale_linear"));
        if let Some(scale) = self.file_number(ATTN_FACTOR).filter(|&scale| scale != 1.0 && kind != "yarn") {
            let found = format!("{scale}: with {kind} scaling, only 1 runs here");
            return Err(self.wrong(&self.name(ATTN_FACTOR), &found));
        }
        match (kind, factor) {
            ("none", None) => Ok(Json::Null),
            ("none" | "linear", Some(1.0)) => Ok(Json::Null),
            ("none" | "linear", Some(factor)) => Ok(json!({ "rope_type": "linear", "factor": factor })),
            ("yarn", Some(factor)) => self.yarn(factor),
            ("linear" | "yarn", None) => Err(self.missing(FACTOR)),
            (other, _) => {
                let found = format!("{other}: none, linear and yarn run here");
                Err(self.wrong(&self.name(TYPE), &found))
            }
        }
    }

    fn finite(&self, key: &str) -> Result<Option<f64>> {
        match self.file_number(key) {
            Some(number) if !number.is_finite() => Err(self.wrong(&self.name(key), &number.to_string())),
            number => Ok(number),
        }
    }

    fn yarn(&self, factor: f64) -> Result<Json> {
        // Below 0 it is not set.
        if let Some(found) = self.finite(EXT_FACTOR)?.filter(|&found| found >= 0.0 && found != 1.0) {
            return Err(self.wrong(&self.name(EXT_FACTOR), &format!("{found}: only 1 runs here")));
        }
        let original = match self.get(ORIGINAL) {
            Some(_) => self.whole(ORIGINAL)?,
            None => self.whole("context_length")?,
        };
        let mut scaling = json!({
            "rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original,
        });
        for (theirs, ours) in [(BETA_FAST, "beta_fast"), (BETA_SLOW, "beta_slow")] {
            if let Some(number) = self.finite(theirs)? {
                scaling[ours] = json!(number);
            }
        }
        // 1, 0 and what follows from the factor are what is meant where nothing is said.
        let plain = 0.1 * factor.ln() + 1.0;
        let said = |key, unsaid: f64| Result::Ok(self.finite(key)?.filter(|&number| number != unsaid));
        let all_dim: Option<f64> = said(LOG_MULTIPLIER, 0.0)?;
        if let Some(all_dim) = all_dim {
            (scaling["mscale"], scaling["mscale_all_dim"]) = (json!(1.0), json!(all_dim));
        }
        let whole = said(YARN_ATTN_FACTOR, 1.0)?.filter(|&scale| (scale - plain).abs() > 1e-6 * plain);
        if let Some(beside) = said(ATTN_FACTOR, 1.0)? {
            let scale = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
            let rest = whole.unwrap_or(all_dim.map_or(scale(1.0), |all_dim| scale(1.0) / scale(all_dim)));
            scaling["attention_factor"] = json!(beside * rest);
        } else if let Some(whole) = whole {
            scaling["attention_factor"] = json!(whole);
        }
        Ok(scaling)
    }
}

/// Keys without the architecture, and their values.
type Named = Vec<(&'static str, Value)>;

/// The keys of a config's scaling, without the architecture, and the parameters in a key of ours where these
/// do not say all of them.
pub(crate) fn scaling_keys(config: &Config) -> std::result::Result<(Named, Option<String>), String> {
    let float = |number: f64| Value::Float(f64::from(number as f32));
    let whole = || Some(rope_scaling(config).to_string());
    match config.rope.scaling {
        RopeScaling::Default => Ok((Vec::new(), None)),
        // Factors stand in a tensor, and do not say which parameters they come from.
        RopeScaling::Llama3 { .. } => Ok((Vec::new(), whole())),
        RopeScaling::Linear { factor } => {
            Ok((vec![(TYPE, Value::Text("linear".to_owned())), (FACTOR, float(factor))], None))
        }
        RopeScaling::Yarn(yarn) if (yarn.beta_fast, yarn.beta_slow) != (Yarn::BETA_FAST, Yarn::BETA_SLOW) => {
            Err("llama.cpp ignores beta_fast and beta_slow of such a model and would rotate by other angles"
                .to_owned())
        }
        RopeScaling::Yarn(yarn) if yarn.truncate => {
            let original = yarn.original_max_position_embeddings as u64;
            let mut keys = vec![
                (TYPE, Value::Text("yarn".to_owned())),
                (FACTOR, float(yarn.factor)),
                (ORIGINAL, Value::Unsigned(original)),
            ];
            let plain = Yarn { attention_factor: None, mscale: None, mscale_all_dim: None, ..yarn };
            let beside = yarn.attention_factor() / plain.attention_factor();
            if beside != 1.0 {
                keys.push((ATTN_FACTOR, float(beside)));
            }
            Ok((keys, (yarn != plain).then(whole).flatten()))
        }
        RopeScaling::Yarn(_) => {
            Err("llama.cpp has no key for a yarn that does not round (truncate is false)".to_owned())
        }
        RopeScaling::Dynamic { .. } => Err("llama.cpp has no keys for dynamic rope_scaling".to_owned()),
    }
}
