//! A linear layer in any number format: the only file that chooses the precision.

use crate::error::Result;
use crate::format::Format;
use crate::source::{Source, storage};
use crate::storage::Storage;
use crate::tensor::TensorSpec;
use crate::ternary::TernaryMatrix;
use bytemuck::Pod;
use offramp_kernels::strips::{STRIP, StripFormat, copy_rows, unpack};
use offramp_kernels::ternary::InputQuantization;
use offramp_kernels::{Job, Operand, Weight, bf16, linear, rows};

/// A linear layer, `y = W·x` or `y = W·x + b`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    matrix: Matrix,
    bias: Option<Storage<f32>>, // [out_features]
}

/// The weight of a linear layer.
///
/// Each number format is a variant. No other file of the model knows which one it runs.
#[derive(Clone, Debug)]
enum Matrix {
    /// 32-bit floats.
    F32(Values<f32>),
    /// bfloat16.
    Bf16(Values<bf16>),
    /// Strips of 8-bit codes.
    Int8(Values<u8>),
    /// Strips of 4-bit codes.
    Int4(Values<u8>),
    /// Strips of 8-bit codes, as GGUF files have them.
    Q8_0(Values<u8>),
    /// Strips of 4-bit codes, as GGUF files have them.
    Q4_0(Values<u8>),
    /// Strips of ternary codes, and how the input is rounded.
    Ternary(TernaryMatrix),
}

/// A matrix in memory or in a mapped file, and its shape.
#[derive(Clone, Debug)]
struct Values<V> {
    weight: Storage<V>, // [out_features, in_features], or strips of them
    out_features: usize,
    in_features: usize,
}

impl<V: Pod> Values<V> {
    fn take(source: &dyn Source, spec: &TensorSpec, format: Format) -> Result<Self> {
        let [out_features, in_features] = spec.shape[..] else { unreachable!("a matrix has two sizes") };
        Ok(Self { weight: storage(source, spec, format)?, out_features, in_features })
    }
}

impl Linear {
    /// The matrix `spec` `[out_features, in_features]` of `source`, in the format `wanted` or else its own;
    /// `input` says how the input is rounded if that is ternary. There is no bias.
    pub(crate) fn take(
        source: &dyn Source,
        spec: &TensorSpec,
        wanted: Option<Format>,
        input: InputQuantization,
    ) -> Result<Self> {
        let format = wanted.map_or_else(|| source.format(spec), Ok)?;
        let matrix = match format {
            Format::F32 => Matrix::F32(Values::take(source, spec, format)?),
            Format::Bf16 => Matrix::Bf16(Values::take(source, spec, format)?),
            Format::Int8 => Matrix::Int8(Values::take(source, spec, format)?),
            Format::Int4 => Matrix::Int4(Values::take(source, spec, format)?),
            Format::Q8_0 => Matrix::Q8_0(Values::take(source, spec, format)?),
            Format::Q4_0 => Matrix::Q4_0(Values::take(source, spec, format)?),
            Format::Ternary => Matrix::Ternary(TernaryMatrix::pack(&source.ternary(spec)?, spec, input)?),
        };
        Ok(Self { matrix, bias: None })
    }

    /// The same with a bias `[out_features]`, which stays in `f32` whatever the format.
    ///
    /// # Panics
    /// If it has another length.
    pub(crate) fn with_bias(self, bias: Storage<f32>) -> Self {
        assert_eq!(bias.as_slice().len(), self.out_features(), "a bias of an output's length");
        Self { bias: Some(bias), ..self }
    }

    /// The same with another layer's bias, if that has one.
    pub(crate) fn with_bias_of(self, other: &Self) -> Self {
        Self { bias: other.bias.clone(), ..self }
    }

    /// How many weights there are, without the bias.
    pub(crate) fn weights(&self) -> usize {
        self.in_features() * self.out_features()
    }

    /// The number format.
    pub(crate) fn format(&self) -> Format {
        match &self.matrix {
            Matrix::F32(_) => Format::F32,
            Matrix::Bf16(_) => Format::Bf16,
            Matrix::Int8(_) => Format::Int8,
            Matrix::Int4(_) => Format::Int4,
            Matrix::Q8_0(_) => Format::Q8_0,
            Matrix::Q4_0(_) => Format::Q4_0,
            Matrix::Ternary(_) => Format::Ternary,
        }
    }

    /// Rows of the weight: the length of an output row.
    pub(crate) fn out_features(&self) -> usize {
        self.sizes().0
    }

    /// Length of an input row.
    pub(crate) fn in_features(&self) -> usize {
        self.sizes().1
    }

    fn sizes(&self) -> (usize, usize) {
        match &self.matrix {
            Matrix::F32(matrix) => (matrix.out_features, matrix.in_features),
            Matrix::Bf16(matrix) => (matrix.out_features, matrix.in_features),
            Matrix::Int8(matrix) | Matrix::Int4(matrix) | Matrix::Q8_0(matrix) | Matrix::Q4_0(matrix) => {
                (matrix.out_features, matrix.in_features)
            }
            Matrix::Ternary(matrix) => (matrix.out_features, matrix.in_features),
        }
    }

    /// Bytes that one token makes the processor read: codes and scales, or floats, and the bias.
    pub(crate) fn bytes(&self) -> u64 {
        let bias = self.bias.as_ref().map_or(0, |bias| size_of_val(bias.as_slice()));
        (self.weight().bytes() + bias) as u64
    }

    /// As the kernels take it.
    fn weight(&self) -> Weight<'_> {
        match &self.matrix {
            Matrix::F32(matrix) => Weight::F32(matrix.weight.as_slice()),
            Matrix::Bf16(matrix) => Weight::Bf16(matrix.weight.as_slice()),
            Matrix::Int8(matrix) => Weight::Strips(StripFormat::Int8, matrix.weight.as_slice()),
            Matrix::Int4(matrix) => Weight::Strips(StripFormat::Int4, matrix.weight.as_slice()),
            Matrix::Q8_0(matrix) => Weight::Strips(StripFormat::Q8_0, matrix.weight.as_slice()),
            Matrix::Q4_0(matrix) => Weight::Strips(StripFormat::Q4_0, matrix.weight.as_slice()),
            Matrix::Ternary(matrix) => Weight::Ternary(matrix.weight()),
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

    /// Appends one row of the weight to `out`, as an embedding does.
    ///
    /// # Panics
    /// If there is no such row, or the matrix is ternary, which no embedding and no head is.
    pub(crate) fn append_row(&self, row: usize, out: &mut Vec<f32>) {
        let width = self.in_features();
        match self.weight() {
            Weight::F32(values) => out.extend_from_slice(&values[row * width..][..width]),
            Weight::Bf16(values) => out.extend(values[row * width..][..width].iter().map(|v| v.to_f32())),
            Weight::Strips(format, strips) => {
                let (bytes, rows) = (format.strip_bytes(width), row % STRIP + 1);
                let mut strip = vec![0.0; rows * width];
                unpack(format, &strips[row / STRIP * bytes..][..bytes], width, &mut strip);
                out.extend_from_slice(&strip[(rows - 1) * width..]);
            }
            Weight::Ternary(_) => unreachable!("neither embedding nor head is ternary"),
        }
    }

    /// Copies the codes and scales of some rows into a strip of the same format; false if there are no
    /// strips.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn copy_rows(&self, rows: &[usize], strip: &mut [u8]) -> bool {
        let Weight::Strips(format, strips) = self.weight() else { return false };
        copy_rows(format, strips, rows, strip);
        true
    }

    /// Applies the layer to every row of `x`; `out` is resized.
    ///
    /// # Shapes
    /// `x`: `[tokens, in_features]`, `out`: `[tokens, out_features]`
    pub(crate) fn forward(&self, x: &[f32], operand: &mut Operand, out: &mut Vec<f32>) {
        together(x, operand, [(self, out)]);
    }
}

/// Applies several layers of the same `in_features` to the same `x`, which is read and converted once. The
/// outputs are resized.
///
/// # Shapes
/// `x`: `[tokens, in_features]`, each output: `[tokens, out_features]`
pub(crate) fn together<const N: usize>(
    x: &[f32],
    operand: &mut Operand,
    products: [(&Linear, &mut Vec<f32>); N],
) {
    let in_features = products[0].0.in_features();
    let biases = products.each_ref().map(|(layer, _)| layer.bias.as_ref());
    let mut jobs = products.map(|(layer, out)| {
        out.resize(x.len() / in_features * layer.out_features(), 0.0);
        Job { weight: layer.weight(), out: &mut out[..] }
    });
    linear(x, in_features, operand, &mut jobs);
    for (job, bias) in jobs.into_iter().zip(biases) {
        if let Some(bias) = bias {
            rows::add_bias(bias.as_slice(), job.out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Given;
    use crate::storage::Pages;

    const OUT: usize = 70;
    const INTO: usize = 65;

    fn numbers(len: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        (0..len).map(|_| next()).collect()
    }

    fn bias() -> Storage<f32> {
        let mut pages = Pages::new(4 * OUT).unwrap();
        bytemuck::cast_slice_mut(pages.bytes_mut()).copy_from_slice(&numbers(OUT, 3));
        pages.into()
    }

    #[test]
    fn a_bias_is_added_in_every_format_to_every_row_and_counted() {
        let spec = TensorSpec::new("weight", &[OUT, INTO]);
        for format in Format::ALL {
            let source = Given::new(|spec: &TensorSpec| Ok(numbers(spec.len(), 1)));
            let plain = Linear::take(&source, &spec, Some(format), InputQuantization::ALL[0]).unwrap();
            let biased = plain.clone().with_bias(bias());
            assert_eq!(biased.bytes(), plain.bytes() + 4 * OUT as u64);
            for rows in [1, 3, 600] {
                let (x, mut operand) = (numbers(rows * INTO, 2), Operand::default());
                let (mut without, mut with, mut beside) = (Vec::new(), Vec::new(), Vec::new());
                plain.forward(&x, &mut operand, &mut without);
                together(&x, &mut operand, [(&biased, &mut with), (&plain, &mut beside)]);
                let expected = without.iter().enumerate().map(|(at, y)| y + bias().as_slice()[at % OUT]);
                assert!(with == expected.collect::<Vec<_>>(), "{format}, {rows} rows");
                assert!(beside == without, "{format}, {rows} rows: the layer without a bias");
            }
        }
    }
}
