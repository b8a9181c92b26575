//! `quantization_config`: of the low-bit family, and of folders that `offramp quantize` wrote.

use super::Block;
use crate::config::bit_linear::{AUTOBITLINEAR, BITLINEAR, BITNET, BITSKIP};
use crate::config::{BitLinear, Quantization, WeightScale, quantization};
use crate::error::Result;
use crate::format::Format;
use serde_json::Value;

impl Block<'_> {
    /// The member of the low-bit family, by its `model_type` and its `quantization_config`, and the format of
    /// its layers if they are packed; none for any other model.
    pub(super) fn bit_linear(&self) -> Result<Option<(BitLinear, Option<Quantization>)>> {
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
        // With any other value the weights would mean something else.
        let json = bit_linear.json();
        for (key, expected) in json.as_object().into_iter().flatten() {
            // Without these norms their epsilon does not matter.
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

    /// In the `quantization_config` of the low-bit family: the meaning of the scales beside packed weights;
    /// none if the weights are floats that are rounded to ternary ones. A missing key has the default of
    /// transformers.
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

    pub(super) fn quantization(&self) -> Result<Option<Quantization>> {
        let Some(block) = self.block("quantization_config", "quantization_config.")? else { return Ok(None) };
        match block.get("quant_method").and_then(Value::as_str) {
            Some(quantization::METHOD) => (),
            // BitNet's layers in a Llama lack the norms that a bitnet has before o_proj and down_proj.
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
            let format = format.filter(|&format| format != Format::Ternary && format.in_folders());
            let expected = || "a block whose format is f32, bf16, int8 or int4";
            format.ok_or_else(|| block.fault(key, expected()))
        };
        let quantization = Quantization::of(format("layers")?, format("head")?);
        let quantization = quantization.ok_or_else(|| block.fault("layers", "int8 or int4, or the head"))?;
        let json = quantization.json();
        // It says how the bytes are read, so it must be complete and hold nothing else.
        let mut keys = json.as_object().into_iter().flatten().map(|(key, _)| key).chain(block.map.keys());
        match keys.find(|&key| block.map.get(key) != json.get(key)) {
            None => Ok(Some(quantization)),
            Some(key) => {
                let expected = json.get(key).map_or("absent".to_owned(), Value::to_string);
                Err(block.fault(key, format!("{expected}: quantize the float model again")))
            }
        }
    }
}
