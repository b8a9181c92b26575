//! The `quantization_config` block: the number formats of a quantized folder.
//!
//! Our block says more than reading needs, so that others can read the bytes. Its `quant_method` is unknown
//! to stock `transformers`, which therefore refuses the folder. Ternary layers are packed as the `bitnet` of
//! `transformers` packs them.

use super::Config;
use crate::error::{Error, Result};
use crate::format::{Format, Formats};
use crate::tensor::{EMBEDDING, HEAD, TensorKind, TensorSpec};
use offramp_kernels::strips::STRIP;
use serde_json::{Value, json};
use std::path::Path;

/// Formats of a folder that holds strips, or packed ternary layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The layers' matrices.
    pub layers: Format,
    /// The LM head. If it is quantized and tied, the folder holds both it and the embedding. Beside ternary
    /// layers it is in a float format.
    pub head: Format,
    /// The meaning of the scale beside each matrix, if the layers are ternary.
    pub weight_scale: Option<WeightScale>,
}

/// The meaning of the `weight_scale` of a packed matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WeightScale {
    /// `bitlinear`: products are divided by it. It is 1 / step.
    Divides,
    /// `autobitlinear`, offline: products are multiplied by it. It is the step.
    Multiplies,
}

pub(super) const METHOD: &str = "offramp";

impl Quantization {
    /// The block of a folder in these formats; none if neither is quantized.
    pub(crate) fn of(layers: Format, head: Format) -> Option<Self> {
        let weight_scale = (layers == Format::Ternary).then_some(WeightScale::Divides);
        (!layers.is_float() || !head.is_float()).then_some(Self { layers, head, weight_scale })
    }

    /// The format of a tensor, if it is quantized. Biases, norms and embeddings never are.
    pub(crate) fn format(&self, spec: &TensorSpec) -> Option<Format> {
        let format = if spec.name == HEAD { self.head } else { self.layers };
        (spec.kind() == TensorKind::Matrix && !spec.is_embedding() && !format.is_float()).then_some(format)
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "quant_method": METHOD,
            "layers": part(self.layers),
            "head": part(self.head),
            "strip_rows": STRIP,
        })
    }
}

fn part(format: Format) -> Value {
    match format.strips() {
        Some(strips) => json!({
            "format": format, "bits": strips.bits(), "block_size": strips.block(), "scales": Format::Bf16,
        }),
        None => json!({ "format": format }),
    }
}

impl Config {
    /// Refuses formats that would quantize what is quantized already, and those that ternary layers cannot
    /// run in; `folder` holds the model.
    pub(crate) fn check_formats(&self, formats: &Formats, folder: &Path) -> Result<()> {
        if let (Some(bit_linear), Some(wanted)) = (self.bit_linear, formats.layers)
            && wanted != Format::Ternary
        {
            return Err(Error::TernaryLayers { path: folder.to_owned(), name: bit_linear.name(), wanted });
        }
        self.check_once(formats, folder)
    }

    /// As [`Config::check_formats`], for a folder that is to be written. It may hold ternary layers as
    /// floats, and only a model that was trained to be ternary may be packed.
    pub(crate) fn check_folder_formats(&self, formats: &Formats, folder: &Path) -> Result<()> {
        let path = folder.to_owned();
        if let Some(wanted) = [formats.layers, formats.head].into_iter().flatten().find(|f| !f.in_folders()) {
            return Err(Error::OnlyInFiles { path, wanted });
        }
        match (self.bit_linear, formats.layers, formats.head) {
            (_, _, Some(Format::Ternary)) => Err(Error::TernaryHead),
            (None, Some(Format::Ternary), _) => Err(Error::NotTernary { path }),
            (Some(bit_linear), Some(wanted @ (Format::Int8 | Format::Int4)), _) => {
                Err(Error::TernaryLayers { path, name: bit_linear.name(), wanted })
            }
            (Some(bit_linear), _, Some(wanted)) if !wanted.is_float() => {
                Err(Error::PackedHead { path, name: bit_linear.name(), wanted })
            }
            _ => self.check_once(formats, folder),
        }
    }

    fn check_once(&self, formats: &Formats, folder: &Path) -> Result<()> {
        let Some(held) = &self.quantization else { return Ok(()) };
        for (held, wanted) in [(held.layers, formats.layers), (held.head, formats.of_head())] {
            let again = |wanted: Format| !held.is_float() && !wanted.is_float() && wanted != held;
            if wanted.is_some_and(again) {
                let advice = "quantize the float model that they were made from";
                return Err(Error::Quantized { path: folder.to_owned(), held, advice });
            }
        }
        Ok(())
    }

    /// The tensor from which a head of this format is made. In a tied model it is the embedding, unless the
    /// folder has a quantized head and that is wanted.
    pub(crate) fn head_source(&self, wanted: Option<Format>) -> TensorSpec {
        let held = self.quantization.map(|held| held.head).filter(|head| !head.is_float());
        let apart = held.is_some_and(|held| wanted.is_none_or(|wanted| wanted == held));
        let name = if self.tie_word_embeddings && !apart { EMBEDDING } else { HEAD };
        TensorSpec { name: name.to_owned(), ..self.head_tensor() }
    }

    /// The format of a new embedding beside layers and a head in these formats. If the head is tied or the
    /// layers are ternary, it is the head's, if that is a float format; else it is f32 beside layers in f32,
    /// and bf16 beside others.
    pub(crate) fn new_embedding(&self, layers: Option<Format>, head: Option<Format>) -> Format {
        let alike = self.tie_word_embeddings || layers == Some(Format::Ternary);
        match head.filter(|head| alike && head.is_float()) {
            Some(head) => head,
            None if layers.is_none_or(|layers| layers == Format::F32) => Format::F32,
            None => Format::Bf16,
        }
    }
}
