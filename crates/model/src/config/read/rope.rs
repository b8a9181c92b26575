//! Rotary positions, in the keys of either generation of `transformers`.

use super::Block;
use crate::config::{RopeParameters, RopeScaling, Yarn};
use crate::error::Result;
use serde_json::Value;

/// What the rope block needs of the keys beside it.
pub(super) struct Beside {
    pub(super) max_position_embeddings: usize,
    /// The base that transformers assumes.
    pub(super) theta: f64,
}

impl Block<'_> {
    /// Rotary positions from `rope_parameters` (transformers 5), `rope_scaling` beside `rope_theta`
    /// (before it), or both, as [`Config::to_json`](crate::Config::to_json) writes them.
    pub(super) fn rope(&self, beside: &Beside) -> Result<RopeParameters> {
        let theta = self.number("rope_theta")?;
        // Where the file has this key outside the block, transformers takes it from there.
        let outside = self.size("original_max_position_embeddings")?;
        let read = |key, prefix| -> Result<Option<RopeParameters>> {
            let Some(block) = self.block(key, prefix)? else { return Ok(None) };
            let original = match outside {
                Some(original) => Some(original),
                None => block.size("original_max_position_embeddings")?,
            };
            Ok(Some(RopeParameters {
                theta: block.number("rope_theta")?.or(theta).unwrap_or(beside.theta),
                scaling: block.rope_scaling(original.unwrap_or(beside.max_position_embeddings))?,
            }))
        };
        let new = read("rope_parameters", "rope_parameters.")?;
        let old = read("rope_scaling", "rope_scaling.")?;
        // transformers 4 reads one set of keys and transformers 5 the other: they must not differ.
        if new.is_some() && old.is_some() && new != old {
            return Err(self.fault("rope_scaling", "the same as rope_parameters says: keep one of the two"));
        }
        let plain = || RopeParameters { theta: theta.unwrap_or(beside.theta), scaling: RopeScaling::Default };
        let rope = new.or(old).unwrap_or_else(plain);
        match theta {
            Some(theta) if theta != rope.theta => {
                Err(self.fault("rope_theta", "what the rope block beside it says: keep one of the two"))
            }
            _ => Ok(rope),
        }
    }

    /// The scaling that a rope block asks for; `original` is the context before it.
    fn rope_scaling(&self, original: usize) -> Result<RopeScaling> {
        let key = if self.get("rope_type").is_some() { "rope_type" } else { "type" };
        self.refuse_partly_rotated_heads()?;
        if let Some(key) =
            ["full_attention", "sliding_attention"].iter().find(|key| self.map.contains_key(**key))
        {
            return Err(self.fault(key, "absent: all layers rotate by one set of parameters"));
        }
        match self.get(key).map(Value::as_str) {
            None | Some(Some("default")) => Ok(RopeScaling::Default),
            Some(Some("linear")) => Ok(RopeScaling::Linear { factor: self.required_number("factor")? }),
            Some(Some("dynamic")) => Ok(RopeScaling::Dynamic { factor: self.required_number("factor")? }),
            Some(Some("llama3")) => Ok(RopeScaling::Llama3 {
                factor: self.required_number("factor")?,
                low_freq_factor: self.required_number("low_freq_factor")?,
                high_freq_factor: self.required_number("high_freq_factor")?,
                original_max_position_embeddings: original,
            }),
            Some(Some("yarn")) => self.yarn(original).map(RopeScaling::Yarn),
            Some(_) => {
                let known = "\"default\", \"linear\", \"dynamic\", \"llama3\" or \"yarn\"";
                Err(self.fault(key, format!("{known}: no other scaling is supported")))
            }
        }
    }

    fn yarn(&self, original_max_position_embeddings: usize) -> Result<Yarn> {
        // transformers takes 0 for these as it takes null.
        let unless_zero = |key| Ok::<_, crate::Error>(self.number(key)?.filter(|&number| number != 0.0));
        Ok(Yarn {
            factor: self.required_number("factor")?,
            original_max_position_embeddings,
            beta_fast: unless_zero("beta_fast")?.unwrap_or(Yarn::BETA_FAST),
            beta_slow: unless_zero("beta_slow")?.unwrap_or(Yarn::BETA_SLOW),
            truncate: self.flag_or("truncate", true)?,
            attention_factor: self.number("attention_factor")?,
            mscale: unless_zero("mscale")?,
            mscale_all_dim: unless_zero("mscale_all_dim")?,
        })
    }
}
