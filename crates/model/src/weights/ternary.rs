//! Ternary tensors of a file: their codes and their step. safetensors have codes and a scale; GGUF has values
//! that are 0 or one number, of either sign, and sometimes a scale.

use super::bitnet;
use super::file::TensorFile;
use crate::config::WeightScale;
use crate::error::{Error, Result};
use crate::tensor::TensorSpec;
use crate::ternary::Codes;
use offramp_kernels::rayon::prelude::*;

impl TensorFile {
    /// The step of a tensor, from the scale beside it.
    pub(super) fn step(&self, scale: &TensorSpec, meaning: WeightScale) -> Result<f32> {
        let mut found = [0.0];
        self.values(scale)?(0, &mut found)?;
        let step = match meaning {
            WeightScale::Divides => 1.0 / found[0],
            WeightScale::Multiplies => found[0],
        };
        if found[0] > 0.0 && step.is_finite() {
            return Ok(step);
        }
        let reason = format!("is {:e}: a scale is above 0, export the model again", found[0]);
        Err(Error::Packed { path: self.path().to_owned(), tensor: scale.name.clone(), reason })
    }

    /// The codes and the step of a checked ternary tensor of a GGUF file; `scale` is beside it, if there is
    /// one.
    pub(super) fn ternary_values(&self, spec: &TensorSpec, scale: Option<&TensorSpec>) -> Result<Codes> {
        let mut floats = Vec::new();
        floats.try_reserve_exact(spec.len()).map_err(|_| Error::memory(spec, 4 * spec.len() as u64))?;
        floats.resize(spec.len(), 0f32);
        self.values(spec)?(0, &mut floats)?;
        let most = floats.par_iter().map(|value| value.abs()).reduce(|| 0.0, f32::max);
        let scale = scale.map_or(Ok(1.0), |scale| self.step(scale, WeightScale::Multiplies))?;
        if let Some(index) = floats.iter().position(|value| *value != 0.0 && value.abs() != most) {
            let reason = format!(
                "has {:e} at index {index} beside {most:e}: ternary weights are 0 or one number, of either sign, as F32, \
                 F16, BF16, TQ1_0 and TQ2_0 keep them, convert the model again",
                floats[index]
            );
            return Err(Error::Packed { path: self.path().to_owned(), tensor: spec.name.clone(), reason });
        }
        let sign = |value: &f32| i8::from(*value > 0.0) - i8::from(*value < 0.0);
        let codes = floats.par_iter().map(sign).collect();
        // Where all are 0, no step matters.
        Ok(Codes { codes, step: if most > 0.0 { most * scale } else { 1.0 } })
    }

    /// The codes of a checked ternary tensor: packed, or floats that are −1, 0 or 1.
    pub(super) fn codes(&self, spec: &TensorSpec) -> Result<Vec<i8>> {
        let fault = |index: usize, found: String| {
            let reason = format!(
                "has {found} at index {index}: ternary weights are −1, 0 or 1, export the model again"
            );
            Error::Packed { path: self.path().to_owned(), tensor: spec.name.clone(), reason }
        };
        if let Some(packed) = self.packed(spec)? {
            return bitnet::unpack(packed).map_err(|index| fault(index, "the code 3".to_owned()));
        }
        let mut floats = vec![0.0; spec.len()];
        self.values(spec)?(0, &mut floats)?;
        match floats.iter().position(|value| ![-1.0, 0.0, 1.0].contains(value)) {
            None => Ok(floats.into_iter().map(|value| value as i8).collect()),
            Some(index) => Err(fault(index, floats[index].to_string())),
        }
    }
}
