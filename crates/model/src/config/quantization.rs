//! The `quantization_config` block: what the tensors of a quantised folder are.
//!
//! It says more than reading needs, so that nobody has to guess what the bytes mean, and its
//! `quant_method` is one that stock `transformers` does not know and so refuses.

use super::{Config, EMBEDDING, HEAD, TensorSpec};
use crate::error::{Error, Result};
use crate::format::{Format, Formats};
use offramp_kernels::strips::STRIP;
use serde_json::{Value, json};
use std::path::Path;

/// Formats of a folder that holds strips.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantization {
    /// The layers' matrices.
    pub layers: Format,
    /// The LM head; where it is quantised and tied, the folder has both it and the embedding.
    pub head: Format,
}

pub(super) const METHOD: &str = "offramp";

impl Quantization {
    /// Of these formats; none if neither is quantised.
    pub(crate) fn of(layers: Format, head: Format) -> Option<Self> {
        (layers.codes().is_some() || head.codes().is_some()).then_some(Self { layers, head })
    }

    /// The format of a tensor, if it is quantised. Norms and embeddings never are.
    pub(crate) fn format(&self, spec: &TensorSpec) -> Option<Format> {
        let format = if spec.name == HEAD { self.head } else { self.layers };
        (spec.shape.len() == 2 && !spec.is_embedding() && format.codes().is_some()).then_some(format)
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
    match format.codes() {
        Some(codes) => json!({
            "format": format, "bits": codes.bits(), "block_size": codes.block(), "scales": Format::Bf16,
        }),
        None => json!({ "format": format }),
    }
}

impl Config {
    /// Refuses formats that could only be reached by quantising twice; `folder` holds the model.
    pub(crate) fn check_formats(&self, formats: &Formats, folder: &Path) -> Result<()> {
        let Some(held) = &self.quantization else { return Ok(()) };
        for (held, wanted) in [(held.layers, formats.layers), (held.head, formats.of_head())] {
            let again = |wanted: Format| held.codes().is_some() && wanted.codes().is_some() && wanted != held;
            if wanted.is_some_and(again) {
                let advice = "quantize the float model that they were made from";
                return Err(Error::Quantized { path: folder.to_owned(), held, advice });
            }
        }
        Ok(())
    }

    /// The tensor to take a head of this format from: the embedding of a tied model, unless its folder has the
    /// head quantised and that is what is wanted.
    pub(crate) fn head_source(&self, wanted: Option<Format>) -> TensorSpec {
        let held = self.quantization.map(|held| held.head).filter(|head| head.codes().is_some());
        let apart = held.is_some_and(|held| wanted.is_none_or(|wanted| wanted == held));
        let name = if self.tie_word_embeddings && !apart { EMBEDDING } else { HEAD };
        TensorSpec { name: name.to_owned(), ..self.head_tensor() }
    }

    /// The format of an embedding that is made beside layers and a head of these: narrow unless the layers are
    /// not, and a tied head's own if that is one of floats.
    pub(crate) fn new_embedding(&self, layers: Option<Format>, head: Option<Format>) -> Format {
        match head.filter(|head| self.tie_word_embeddings && head.codes().is_none()) {
            Some(head) => head,
            None if layers.is_none_or(|layers| layers == Format::F32) => Format::F32,
            None => Format::Bf16,
        }
    }
}
