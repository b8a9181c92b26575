//! A weight matrix and its number format: the one place where precision is chosen.

use crate::config::TensorSpec;
use crate::error::Result;
use crate::format::Format;
use crate::source::{Source, storage};
use crate::ternary::TernaryMatrix;
use crate::weights::Storage;
use bytemuck::Pod;
use offramp_kernels::strips::{Codes, STRIP, unpack};
use offramp_kernels::ternary::Input;
use offramp_kernels::{Job, Operand, Weight, bf16, linear};

/// A linear layer without bias, `y = W·x`.
///
/// Narrower formats join here, as variants; no other file of the model knows which one it runs.
#[derive(Clone, Debug)]
pub enum Linear {
    /// 32-bit floats.
    F32(Matrix<f32>),
    /// bfloat16.
    Bf16(Matrix<bf16>),
    /// Strips of 8-bit codes.
    Int8(Matrix<u8>),
    /// Strips of 4-bit codes.
    Int4(Matrix<u8>),
    /// Strips of ternary codes, and how the input is rounded.
    Ternary(TernaryMatrix),
}

/// Where a matrix lies, possibly in the file, and its shape.
#[derive(Clone, Debug)]
pub struct Matrix<V> {
    weight: Storage<V>, // [out_features, in_features], or strips of them
    out_features: usize,
    in_features: usize,
}

impl<V: Pod> Matrix<V> {
    fn take(source: &mut dyn Source, spec: &TensorSpec, format: Format) -> Result<Self> {
        let [out_features, in_features] = spec.shape[..] else { unreachable!("a matrix has two sizes") };
        Ok(Self { weight: storage(source, spec, format)?, out_features, in_features })
    }
}

impl Linear {
    /// The matrix `spec` `[out_features, in_features]` of `source`, in the format it has there or `wanted`; where that
    /// is ternary, `input` is what becomes of the other factor.
    pub(crate) fn take(
        source: &mut dyn Source,
        spec: &TensorSpec,
        wanted: Option<Format>,
        input: Input,
    ) -> Result<Self> {
        let format = wanted.map_or_else(|| source.format(spec), Ok)?;
        Ok(match format {
            Format::F32 => Self::F32(Matrix::take(source, spec, format)?),
            Format::Bf16 => Self::Bf16(Matrix::take(source, spec, format)?),
            Format::Int8 => Self::Int8(Matrix::take(source, spec, format)?),
            Format::Int4 => Self::Int4(Matrix::take(source, spec, format)?),
            Format::Ternary => Self::Ternary(TernaryMatrix::take(source, spec, input)?),
        })
    }

    /// The number format.
    pub fn format(&self) -> Format {
        match self {
            Self::F32(_) => Format::F32,
            Self::Bf16(_) => Format::Bf16,
            Self::Int8(_) => Format::Int8,
            Self::Int4(_) => Format::Int4,
            Self::Ternary(_) => Format::Ternary,
        }
    }

    /// Rows of the weight: the length of an output row.
    pub fn out_features(&self) -> usize {
        self.sizes().0
    }

    /// Length of an input row.
    pub fn in_features(&self) -> usize {
        self.sizes().1
    }

    fn sizes(&self) -> (usize, usize) {
        match self {
            Self::F32(matrix) => (matrix.out_features, matrix.in_features),
            Self::Bf16(matrix) => (matrix.out_features, matrix.in_features),
            Self::Int8(matrix) | Self::Int4(matrix) => (matrix.out_features, matrix.in_features),
            Self::Ternary(matrix) => (matrix.out_features, matrix.in_features),
        }
    }

    /// Bytes that one token makes the processor read: codes and scales, or floats.
    pub fn bytes(&self) -> u64 {
        self.weight().bytes() as u64
    }

    /// As the kernels take it.
    fn weight(&self) -> Weight<'_> {
        match self {
            Self::F32(matrix) => Weight::F32(matrix.weight.as_slice()),
            Self::Bf16(matrix) => Weight::Bf16(matrix.weight.as_slice()),
            Self::Int8(matrix) => Weight::Strips(Codes::Int8, matrix.weight.as_slice()),
            Self::Int4(matrix) => Weight::Strips(Codes::Int4, matrix.weight.as_slice()),
            Self::Ternary(matrix) => Weight::Ternary(matrix.weight()),
        }
    }

    /// Whether both are one matrix in memory, as a tied head and its embedding.
    pub(crate) fn shares(&self, other: &Self) -> bool {
        let address = |linear: &Self| match linear.weight() {
            Weight::F32(values) => values.as_ptr().cast::<u8>(),
            Weight::Bf16(values) => values.as_ptr().cast(),
            Weight::Strips(_, bytes) => bytes.as_ptr(),
            Weight::Ternary(weight) => weight.strips.as_ptr(),
        };
        address(self) == address(other)
    }

    /// Appends one row of the weight to `out`: what an embedding is there for.
    ///
    /// # Panics
    /// If there is no such row, or the matrix is ternary, which no embedding and no head is.
    pub(crate) fn append_row(&self, row: usize, out: &mut Vec<f32>) {
        let width = self.in_features();
        match self.weight() {
            Weight::F32(values) => out.extend_from_slice(&values[row * width..][..width]),
            Weight::Bf16(values) => out.extend(values[row * width..][..width].iter().map(|v| v.to_f32())),
            Weight::Strips(codes, strips) => {
                let (bytes, rows) = (codes.strip_bytes(width), row % STRIP + 1);
                let mut strip = vec![0.0; rows * width];
                unpack(codes, &strips[row / STRIP * bytes..][..bytes], width, &mut strip);
                out.extend_from_slice(&strip[(rows - 1) * width..]);
            }
            Weight::Ternary(_) => unreachable!("neither embedding nor head is ternary"),
        }
    }

    /// Applies the layer to every row of `x`; `out` is resized.
    ///
    /// # Shapes
    /// `x`: `[tokens, in_features]`, `out`: `[tokens, out_features]`
    pub(crate) fn forward(&self, x: &[f32], operand: &mut Operand, out: &mut Vec<f32>) {
        together(x, operand, [(self, out)]);
    }
}

/// Applies up to four layers of the same `in_features` to the same `x`, which is read and converted once;
/// the outputs are resized.
///
/// # Shapes
/// `x`: `[tokens, in_features]`, each output: `[tokens, out_features]`
pub(crate) fn together<const N: usize>(
    x: &[f32],
    operand: &mut Operand,
    products: [(&Linear, &mut Vec<f32>); N],
) {
    let in_features = products[0].0.in_features();
    let mut jobs = products.map(|(layer, out)| {
        out.resize(x.len() / in_features * layer.out_features(), 0.0);
        Job { weight: layer.weight(), out: &mut out[..] }
    });
    linear(x, in_features, operand, &mut jobs);
}
