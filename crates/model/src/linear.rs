//! A weight matrix and its number format: the one place where precision is chosen.

use crate::weights::F32Storage;
use offramp_kernels::{Job, Operand, Weight, linear};

/// A linear layer without bias, `y = W·x`.
///
/// The narrower formats join here, as variants, when their kernels exist; no other file of the model
/// knows which one it runs.
#[derive(Clone, Debug)]
pub enum Linear {
    /// 32-bit floats, possibly mapped straight from the file.
    F32 {
        /// `[out_features, in_features]`
        weight: F32Storage,
        /// Length of an input row.
        in_features: usize,
    },
}

impl Linear {
    /// A full-precision layer over `weight` `[out_features, in_features]`.
    pub(crate) fn f32(weight: F32Storage, in_features: usize) -> Self {
        Self::F32 { weight, in_features }
    }

    /// Rows of the weight: the length of an output row.
    pub fn out_features(&self) -> usize {
        match self {
            Self::F32 { weight, in_features } => weight.as_slice().len() / in_features,
        }
    }

    /// Bytes that one token makes the processor read.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::F32 { weight, .. } => size_of_val(weight.as_slice()) as u64,
        }
    }

    /// Applies the layer to every row of `x`; `out` is resized.
    ///
    /// # Shapes
    /// `x`: `[tokens, in_features]`, `out`: `[tokens, out_features]`
    pub(crate) fn forward(&self, x: &[f32], out: &mut Vec<f32>) {
        match self {
            Self::F32 { weight, in_features } => {
                out.resize(x.len() / in_features * self.out_features(), 0.0);
                let weight = Weight::F32(weight.as_slice());
                linear(x, *in_features, &mut Operand::default(), &mut [Job { weight, out }]);
            }
        }
    }
}
