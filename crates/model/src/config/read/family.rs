//! Which family a config is of, and the keys that only some families have.

use super::Block;
use crate::config::bit_linear::{BITNET, BITSKIP};
use crate::config::limits::MAX_LAYERS;
use crate::config::{Family, ModelType, SlidingWindow};
use crate::error::Result;
use serde_json::Value;
use std::collections::BTreeSet;

/// Keys of models that compute something that does not run here.
const FURTHER: [&str; 8] = [
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "num_experts",
    "num_local_experts",
    "n_routed_experts",
    "attention_chunk_size",
    "use_mrope",
    "use_qk_norm",
];

/// The two names in `layer_types`.
const FULL: &str = "full_attention";
const SLIDING: &str = "sliding_attention";

impl Block<'_> {
    /// The family, by its `model_type`. A `bitnet` and a `bitskip` count as Llamas.
    pub(super) fn model_type(&self) -> Result<ModelType> {
        let name = self.get("model_type").and_then(Value::as_str).unwrap_or_default();
        if [BITNET, BITSKIP].contains(&name) {
            return Ok(ModelType::Llama);
        }
        let found = ModelType::ALL.into_iter().find(|model_type| model_type.name() == name);
        found.ok_or_else(|| {
            let names = ModelType::ALL.map(|model_type| format!("{:?}", model_type.name())).join(", ");
            let expected = format!("{names}, {BITNET:?} or {BITSKIP:?}, the architectures that run here");
            self.fault("model_type", expected)
        })
    }

    /// Refuses keys with which the same weights would compute something else.
    pub(super) fn refuse_what_goes_further(&self) -> Result<()> {
        let nothing = |value: &Value| value == &Value::Bool(false) || value.as_f64() == Some(0.0);
        match FURTHER.iter().find(|key| self.get(key).is_some_and(|value| !nothing(value))) {
            None => Ok(()),
            Some(key) => Err(self.fault(key, "absent: a model that has it computes what does not run here")),
        }
    }

    /// What the family has beyond a plain Llama. `layers` is not checked yet.
    pub(super) fn family(&self, model_type: ModelType, layers: usize) -> Result<Family> {
        let layers = layers.min(MAX_LAYERS);
        let no_rope_layers = match model_type {
            ModelType::SmolLm3 => self.no_rope_layers(layers)?,
            _ => BTreeSet::new(),
        };
        let sliding_window = match model_type {
            ModelType::Llama => None,
            ModelType::Mistral => self.mistral_window(layers)?,
            ModelType::Qwen2 | ModelType::Qwen3 => {
                let first = self.size("max_window_layers")?.unwrap_or(28);
                self.window_of_layers(layers, Some(4096), &(first.min(layers)..layers).collect())?
            }
            ModelType::SmolLm3 => self.window_of_layers(layers, None, &no_rope_layers)?,
        };
        Ok(Family {
            model_type,
            // Qwen2 ignores this key: its biases are fixed.
            attention_bias: model_type != ModelType::Qwen2 && self.flag_or("attention_bias", false)?,
            mlp_bias: self.flag_or("mlp_bias", false)?,
            no_rope_layers,
            sliding_window,
        })
    }

    /// The layers that `no_rope_layers` marks by 0; 1 marks a layer that rotates. Without this key, every
    /// `no_rope_layer_interval`th layer.
    fn no_rope_layers(&self, layers: usize) -> Result<BTreeSet<usize>> {
        let key = "no_rope_layers";
        let Some(value) = self.get(key) else {
            let interval = self.size("no_rope_layer_interval")?.unwrap_or(4);
            if interval == 0 {
                return Err(self.fault("no_rope_layer_interval", "1 or more"));
            }
            return Ok((0..layers).filter(|layer| (layer + 1).is_multiple_of(interval)).collect());
        };
        let rotates = |value: &Value| value.as_bool().or_else(|| Some(value.as_u64()? != 0));
        let list = value.as_array().filter(|list| list.len() >= layers);
        let list = list.and_then(|list| list[..layers].iter().map(rotates).collect::<Option<Vec<_>>>());
        let list = list.ok_or_else(|| self.fault(key, "a list of 0 and 1, one for each layer"))?;
        Ok((0..layers).filter(|&layer| !list[layer]).collect())
    }

    /// The window of all layers, if it is not null.
    fn mistral_window(&self, layers: usize) -> Result<Option<SlidingWindow>> {
        let size = self.window(Some(4096))?;
        let all: BTreeSet<usize> = (0..layers).collect();
        if let Some(types) = self.layer_types(layers)?
            && types != if size.is_some() { all.clone() } else { BTreeSet::new() }
        {
            let expected = "absent: sliding_window is that of all layers, or null";
            return Err(self.fault("layer_types", expected));
        }
        Ok(size.map(|size| SlidingWindow { size, layers: all }))
    }

    /// The window of the layers in `layer_types`, or of those in `otherwise` without that key.
    fn window_of_layers(
        &self,
        layers: usize,
        assumed: Option<usize>,
        otherwise: &BTreeSet<usize>,
    ) -> Result<Option<SlidingWindow>> {
        let size = if self.flag_or("use_sliding_window", false)? { self.window(assumed)? } else { None };
        let types = self.layer_types(layers)?;
        match (size, types) {
            (None, Some(types)) if !types.is_empty() => {
                let expected =
                    format!("without {SLIDING:?}, or beside use_sliding_window and a sliding_window");
                Err(self.fault("layer_types", expected))
            }
            (None, _) => Ok(None),
            (Some(size), types) => {
                let layers = types.unwrap_or_else(|| otherwise.clone());
                Ok((!layers.is_empty()).then_some(SlidingWindow { size, layers }))
            }
        }
    }

    /// `sliding_window`: `null` is none, absent is the default of transformers.
    fn window(&self, assumed: Option<usize>) -> Result<Option<usize>> {
        match self.map.contains_key("sliding_window") {
            true => self.size("sliding_window"),
            false => Ok(assumed),
        }
    }

    /// The layers of `layer_types` that have a window.
    fn layer_types(&self, layers: usize) -> Result<Option<BTreeSet<usize>>> {
        let key = "layer_types";
        let Some(value) = self.get(key) else { return Ok(None) };
        let slides = |value: &Value| match value.as_str() {
            Some(SLIDING) => Some(true),
            Some(FULL) => Some(false),
            _ => None,
        };
        let list = value.as_array().filter(|list| list.len() == layers);
        let list = list.and_then(|list| list.iter().map(slides).collect::<Option<Vec<_>>>());
        let expected = || format!("a list of {FULL:?} and {SLIDING:?}, one for each layer");
        let list = list.ok_or_else(|| self.fault(key, expected()))?;
        Ok(Some((0..layers).filter(|&layer| list[layer]).collect()))
    }
}
