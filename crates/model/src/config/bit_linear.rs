//! The low-bit family: models whose layers are `BitLinear`, and how their `config.json` says so.
//!
//! `bitskip-v1` is what stock `transformers` calls `bitnet`, and is written as that. `transformers` does not
//! know the two rotated ones: their `model_type` is one that it refuses, so that it does not read them as
//! another model.

use super::WeightScale;
use offramp_kernels::bit_linear::Activations;
use serde_json::{Value, json};

/// The kind of the seven projections of every layer, where they are ternary. The embedding and the LM head
/// never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BitLinear {
    /// The codes of a projection's input.
    pub activations: Activations,
    /// Whether the input of `o_proj` and `down_proj` is rotated first (`H-BitLinear`, BitNet v2).
    pub hadamard: bool,
}

impl BitLinear {
    /// Ternary weights and 8-bit activations (BitNet b1.58).
    pub const V1: Self = Self { activations: Activations::Int8, hadamard: false };
    /// With 4-bit activations and the rotation (BitNet v2, its last stage).
    pub const V2: Self = Self { activations: Activations::Int4, hadamard: true };
    /// With 8-bit activations and the rotation (BitNet v2, its first stage).
    pub const V3: Self = Self { activations: Activations::Int8, hadamard: true };

    /// The name in the family.
    pub const fn name(self) -> &'static str {
        match (self.activations, self.hadamard) {
            (Activations::Int8, false) => "bitskip-v1",
            (Activations::Int4, _) => "bitskip-v2", // 4 bits without the rotation are refused
            (Activations::Int8, true) => "bitskip-v3",
        }
    }

    /// Architecture and `model_type`.
    pub(super) const fn model_type(self) -> (&'static str, &'static str) {
        match self.hadamard {
            false => ("BitNetForCausalLM", BITNET),
            true => ("BitSkipForCausalLM", BITSKIP),
        }
    }

    /// The `quantization_config` of a folder of packed ternary weights, each with a scale of this meaning.
    pub(crate) fn packed_json(self, scale: WeightScale) -> Value {
        let mut json = self.json();
        json["linear_class"] = match scale {
            WeightScale::Divides => json!(BITLINEAR),
            WeightScale::Multiplies => json!(AUTOBITLINEAR),
        };
        json["quantization_mode"] = json!("offline");
        json
    }

    /// The `quantization_config` of a folder of floats that are rounded to ternary weights.
    pub(super) fn json(self) -> Value {
        match self.hadamard {
            false => json!({
                "quant_method": BITNET,
                "linear_class": AUTOBITLINEAR,
                "quantization_mode": "online",
                "use_rms_norm": false,
                "rms_norm_eps": 1e-6,
                "modules_to_not_convert": null,
            }),
            true => json!({
                "quant_method": BITSKIP,
                "activation_bits": self.activations.bits(),
                "hadamard": true,
                "quantization_mode": "online",
            }),
        }
    }
}

/// Hugging Face's name of ternary models, as `model_type` and as `quant_method`.
pub(super) const BITNET: &str = "bitnet";
/// Its two kinds of layers. They are packed alike; the scale of one is the reciprocal of the other's.
pub(super) const BITLINEAR: &str = "bitlinear";
pub(super) const AUTOBITLINEAR: &str = "autobitlinear";
/// Our name of the rotated ones.
pub(super) const BITSKIP: &str = "bitskip";
