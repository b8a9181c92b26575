//! How the matrices of a GGUF file run, for those who ask.

use super::Weights;
use crate::config::Config;
use crate::error::Result;
use crate::format::Format;
use crate::source::Source;
use crate::tensor::TensorKind;
use serde::Serialize;
use std::collections::BTreeMap;

/// How the matrices of one number format of a GGUF file run, unless another format is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Runs {
    /// The file's format, by ggml's name.
    pub stored: String,
    /// The format in which they are computed with.
    pub format: Format,
    /// What they become.
    #[serde(rename = "as")]
    pub kept: Kept,
    /// Values of these matrices.
    pub values: u64,
}

/// What is kept of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kept {
    /// Floats: every value.
    Values,
    /// The file's codes and scales.
    Codes,
    /// Neither: the values are rounded once more.
    Rounded,
}

impl Weights {
    /// How the matrices of a GGUF file run; none of a folder's, which are computed with as they are.
    ///
    /// # Errors
    /// If a tensor of the model is not there.
    pub fn runs(&self, config: &Config) -> Result<Vec<Runs>> {
        let mut found = BTreeMap::new();
        for spec in config.tensors().iter().filter(|spec| spec.kind() == TensorKind::Matrix) {
            let Some(kind) = self.file_of(spec)?.gguf_type(spec) else { continue };
            let format = self.format(spec)?;
            let kept = match format {
                _ if kind.is_float() => Kept::Values,
                Format::Q8_0 | Format::Q4_0 | Format::Ternary => Kept::Codes,
                _ => Kept::Rounded,
            };
            *found.entry((kind.name(), format, kept)).or_default() += spec.len() as u64;
        }
        let runs =
            found.into_iter().map(|((stored, format, kept), values)| Runs { stored, format, kept, values });
        Ok(runs.collect())
    }
}
