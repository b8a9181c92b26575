//! How a matrix of a format lies in memory and in files, and how it is encoded from floats.

use crate::error::{Error, Result};
use crate::format::Format;
use crate::tensor::TensorSpec;
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::strips::{STRIP, pack};
use offramp_kernels::{active, bf16};
use safetensors::Dtype;

/// Writes the values of a tensor, row-major, from an index on; the index is that of a strip's first row.
pub(crate) type Values<'a> = dyn Fn(usize, &mut [f32]) -> Result<()> + Sync + 'a;

/// A matrix in a format: rows of floats, or strips of codes. Ternary codes as a file packs them have a layout
/// too, but `encode` does not make them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) format: Format,
    rows: usize,
    in_features: usize,
}

impl Layout {
    /// A tensor in `format`; a vector is one row.
    pub(crate) fn new(spec: &TensorSpec, format: Format) -> Self {
        let (&in_features, rows) = spec.shape.split_last().unwrap_or((&1, &[]));
        let rows = rows.iter().fold(1usize, |product, &size| product.saturating_mul(size));
        Self { format, rows, in_features }
    }

    /// Values of [`STRIP`] rows.
    pub(crate) fn strip_values(&self) -> usize {
        STRIP * self.in_features
    }

    /// Bytes of [`STRIP`] rows.
    pub(crate) fn strip_bytes(&self) -> usize {
        match (self.format, self.format.strips()) {
            (_, Some(format)) => format.strip_bytes(self.in_features),
            (Format::Bf16, _) => self.strip_values() * size_of::<bf16>(),
            (Format::Ternary, _) => self.strip_values() / 4,
            _ => self.strip_values() * size_of::<f32>(),
        }
    }

    /// Bytes of the whole matrix; none if they do not fit a `usize`.
    pub(crate) fn bytes(&self) -> Option<usize> {
        let values = || self.rows.checked_mul(self.in_features);
        match (self.format, self.format.strips()) {
            (_, Some(format)) => format.bytes(self.rows, self.in_features),
            (Format::Bf16, _) => values()?.checked_mul(size_of::<bf16>()),
            (Format::Ternary, _) => (self.rows / 4).checked_mul(self.in_features),
            _ => values()?.checked_mul(size_of::<f32>()),
        }
    }

    /// The shape of the tensor that holds it in a file.
    pub(crate) fn shape(&self, spec: &TensorSpec) -> Vec<usize> {
        match (self.format, self.format.strips()) {
            (_, Some(_)) => vec![self.rows.div_ceil(STRIP), self.strip_bytes()],
            (Format::Ternary, _) => vec![self.rows / 4, self.in_features],
            _ => spec.shape.clone(),
        }
    }

    /// Encodes strips from number `first` on into `out`, which is aligned for the format, until it is full.
    /// All threads share the work, one strip of floats each.
    ///
    /// # Errors
    /// The first that `values` returns.
    pub(crate) fn encode(&self, values: &Values<'_>, first: usize, out: &mut [u8]) -> Result<()> {
        let all = self.rows * self.in_features;
        let strip = self.strip_values();
        let one = |floats: &mut Vec<f32>, index: usize, out: &mut [u8]| {
            let start = (first + index) * strip;
            if self.format == Format::F32 {
                return values(start, bytemuck::cast_slice_mut(out));
            }
            floats.resize(strip.min(all - start), 0.0);
            values(start, floats)?;
            match self.format.strips() {
                Some(format) => pack(format, floats, self.in_features, out),
                None => (active().narrow)(floats, bytemuck::cast_slice_mut(out)),
            }
            Ok(())
        };
        let strips = out.par_chunks_mut(self.strip_bytes().max(1)).enumerate();
        let failed = strips.map_init(Vec::new, |floats, (index, out)| one(floats, index, out));
        failed.find_map_first(Result::err).map_or(Ok(()), Err)
    }

    /// The elements' type in a safetensors file.
    pub(crate) fn dtype(&self) -> Dtype {
        match self.format {
            Format::F32 => Dtype::F32,
            Format::Bf16 => Dtype::BF16,
            Format::Int8 | Format::Int4 | Format::Q8_0 | Format::Q4_0 | Format::Ternary => Dtype::U8,
        }
    }

    /// [`bytes`](Self::bytes), with an error that names the tensor.
    ///
    /// # Errors
    /// If they do not fit a `usize`.
    pub(crate) fn checked_bytes(&self, spec: &TensorSpec) -> Result<usize> {
        self.bytes().ok_or_else(|| Error::memory(spec, u64::MAX))
    }
}
