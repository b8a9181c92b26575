//! Root-mean-square norm (Zhang and Sennrich 2019).

use crate::storage::Storage;
use offramp_kernels::rows;

/// A norm with a weight.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    pub(crate) weight: Storage<f32>, // [width]
    pub(crate) eps: f32,
}

impl RmsNorm {
    /// Norms every row of `x` `[rows, width]` into `out`, which is resized.
    pub(crate) fn forward(&self, x: &[f32], out: &mut Vec<f32>) {
        out.resize(x.len(), 0.0);
        rows::rms_norm(x, self.weight.as_slice(), self.eps, out);
    }

    /// Bytes of the weight.
    pub(crate) fn bytes(&self) -> u64 {
        size_of_val(self.weight.as_slice()) as u64
    }
}
