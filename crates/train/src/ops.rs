//! Every operation of the network, its forward beside its backward: the only part of this room that
//! touches numbers.
//!
//! The functions are plain: slices, a few sizes, no state, every buffer the caller's. Large products go
//! to `gemm`, rows to the table of the instruction set. What is summed over rows (the gradients of the
//! norms) is summed in blocks of a fixed size and then in order, so that the number of threads changes no
//! bit. A backward adds to the gradients of weights (`d_weight`) and says in its first line what it does
//! to the others.
//!
//! Layer dropout takes whole samples out of a layer. Between the two ends of a layer buffers are
//! *compact*: they hold the kept samples only, one after the other. `rms_norm` gathers at the layer's
//! entry, `residual` scatters at its exit, and the operations between see fewer rows.

pub(crate) mod attention;
pub(crate) mod bit_linear;
pub(crate) mod embedding;
pub(crate) mod exit_head;
#[cfg(test)]
pub(crate) mod finite_difference;
pub(crate) mod hadamard;
pub(crate) mod heads;
pub(crate) mod linear;
pub(crate) mod residual;
pub(crate) mod rms_norm;
pub(crate) mod swiglu;

/// Rows that one task takes at a time. Fixed, because partial sums are made per block.
pub(crate) const BLOCK: usize = 64;

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
