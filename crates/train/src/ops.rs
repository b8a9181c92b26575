//! Every operation of training, its forward beside its backward. In a step, only this folder touches numbers.
//!
//! A GPU would implement this list a second time, so it stays short and its signatures stay plain: slices,
//! sizes and small structs. An op keeps no state and reads no clock. The caller owns every buffer.
//!
//! - The network: [`embedding`], [`rms_norm`], [`linear`], [`head_norm`], [`heads`], [`attention`],
//!   [`swiglu`], [`residual`], [`cross_entropy`], [`distillation`].
//! - Low-bit layers: [`bit_linear`], [`hadamard`].
//! - The update: [`adamw`], [`muon`], and [`values`] for whole buffers.
//!
//! Large products go to `gemm`, rows to the table of the instruction set. A sum over rows (the gradient of a
//! norm) is made in blocks of a fixed size, and the blocks are added in order: the number of threads changes
//! no bit. A backward adds to the gradients of weights (`d_weight`). Its first line says what it does to the
//! other buffers.
//!
//! Layer dropout takes whole samples out of a layer. Inside a layer, buffers are *compact*: they hold the
//! kept samples only, one after the other. `rms_norm` gathers them at the layer's entry and `residual`
//! scatters them at its exit, so the operations between see fewer rows.

pub(crate) mod adamw;
pub(crate) mod adapter;
pub(crate) mod attention;
pub(crate) mod bit_linear;
pub(crate) mod cross_entropy;
pub(crate) mod distillation;
pub(crate) mod embedding;
#[cfg(test)]
pub(crate) mod finite_difference;
pub(crate) mod hadamard;
pub(crate) mod head_norm;
pub(crate) mod heads;
pub(crate) mod linear;
pub(crate) mod muon;
pub(crate) mod residual;
pub(crate) mod rms_norm;
pub(crate) mod swiglu;
pub(crate) mod values;

/// Rows that one task takes at a time. It is fixed because partial sums are made per block.
pub(crate) const BLOCK: usize = 64;

/// Values that one task takes at a time, where rows do not matter. It is fixed for the same reason.
const CHUNK: usize = 1 << 14;

/// The samples that a layer works on, and where their rows stand in a buffer of all samples.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept<'a> {
    /// Indices of the kept samples, increasing.
    pub(crate) samples: &'a [usize],
    /// Tokens of one sample.
    pub(crate) length: usize,
}

impl Kept<'_> {
    /// Rows of a compact buffer.
    pub(crate) fn rows(&self) -> usize {
        self.samples.len() * self.length
    }

    /// The row in a buffer of all samples at which compact row `row` stands.
    pub(crate) fn source(&self, row: usize) -> usize {
        self.samples[row / self.length] * self.length + row % self.length
    }
}
