//! A matrix of ternary weights, made of floats or of codes from a folder.

use crate::error::{Error, Result};
use crate::format::Format;
use crate::layout::{Layout, Values};
use crate::storage::{Pages, Storage};
use crate::tensor::TensorSpec;
use offramp_kernels::TernaryWeight;
use offramp_kernels::bit_linear::{absmean, ternary};
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::strips::STRIP;
use offramp_kernels::ternary::{self as strips, InputQuantization};

/// Strips of codes −1, 0 and 1, and the step that they are multiplied by.
#[derive(Clone, Debug)]
pub(crate) struct TernaryMatrix {
    strips: Storage<u8>,
    step: f32,
    input: InputQuantization,
    pub(crate) out_features: usize,
    pub(crate) in_features: usize,
}

/// A matrix `[out_features, in_features]` in codes −1, 0 and 1.
pub(crate) struct Codes {
    pub(crate) codes: Vec<i8>,
    pub(crate) step: f32,
}

impl TernaryMatrix {
    /// Packs the codes of the matrix `spec` `[out_features, in_features]`; `input` says how the other factor
    /// is rounded.
    ///
    /// # Errors
    /// If the matrix is too large or there is no memory for it.
    pub(crate) fn pack(codes: &Codes, spec: &TensorSpec, input: InputQuantization) -> Result<Self> {
        let [out_features, in_features] = spec.shape[..] else { unreachable!("a matrix has two sizes") };
        let bytes = strips::bytes(out_features, in_features).filter(|_| in_features <= strips::MAX_FEATURES);
        let bytes = bytes.ok_or_else(|| Error::memory(spec, u64::MAX))?;
        let mut pages = Pages::new(bytes).map_err(|_| Error::memory(spec, bytes as u64))?;
        let Codes { codes, step } = codes;
        let each = pages.bytes_mut().par_chunks_exact_mut(strips::strip_bytes(in_features));
        each.zip(codes.par_chunks(STRIP * in_features))
            .for_each(|(strip, codes)| strips::pack(codes, in_features, strip));
        Ok(Self { strips: pages.into(), step: *step, input, out_features, in_features })
    }

    /// As the kernels take it.
    pub(crate) fn weight(&self) -> TernaryWeight<'_> {
        TernaryWeight { strips: self.strips.as_slice(), step: self.step, input: self.input }
    }
}

impl Codes {
    /// Rounds floats: see [`bit_linear`](offramp_kernels::bit_linear).
    ///
    /// # Errors
    /// The first that `values` returns, or if there is no memory for the floats.
    pub(crate) fn of(values: &Values<'_>, spec: &TensorSpec) -> Result<Self> {
        let layout = Layout::new(spec, Format::F32);
        let bytes = layout.checked_bytes(spec)?;
        // A Vec instead of pages: pages share chunks with what stays, and a chunk is freed only as a whole.
        let mut floats = Vec::new();
        floats.try_reserve_exact(spec.len()).map_err(|_| Error::memory(spec, bytes as u64))?;
        floats.resize(spec.len(), 0f32);
        layout.encode(values, 0, bytemuck::cast_slice_mut(&mut floats))?;
        let step = absmean(&floats);
        let mut codes = vec![0; floats.len()];
        let piece = layout.strip_values().max(1);
        let pieces = codes.par_chunks_mut(piece).zip(floats.par_chunks(piece));
        pieces.for_each(|(codes, floats)| ternary(floats, step, codes));
        Ok(Self { codes, step })
    }

    /// The magnitude of floats that are rounded to these codes and this step. All that are not zero are
    /// alike.
    pub(crate) fn magnitude(&self) -> f32 {
        let nonzero = self.codes.par_iter().filter(|&&code| code != 0).count();
        (f64::from(self.step) * self.codes.len() as f64 / nonzero.max(1) as f64) as f32
    }
}
