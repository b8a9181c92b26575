//! Ternary tensors of a file: their codes and their step.

use super::bitnet;
use super::file::TensorFile;
use crate::config::WeightScale;
use crate::error::{Error, Result};
use crate::tensor::TensorSpec;

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
