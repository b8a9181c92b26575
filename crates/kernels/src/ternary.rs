//! Ternary weights: −1, 0 or 1 in two bits, one step for the whole matrix (BitNet b1.58, Ma et al. 2024).
//!
//! As in [`strips`](crate::strips), 32 rows are a strip, written in the order in which a product reads it.
//! But a strip holds no scales. A line of 128 bytes holds 32 rows at 16 consecutive k, with four bytes of a
//! row side by side. Byte i holds, from its lowest bits on, the codes at k + i, k + 4 + i, k + 8 + i and k +
//! 12 + i. A stored code is code + 1. `docs/kernels.md` draws the layout.
//!
//! The input is quantized to whole numbers with one step (scale) for each token. So an element is one exact
//! sum in `i32`: `y = (Σ stored · x − Σ x) · (step of the token · step of the weights)`. Any order of
//! summation gives the same bits.

pub(crate) mod layout;
mod pack;
pub(crate) mod portable_ternary;
pub(crate) mod row_quantized;
mod row_quantizer;
#[cfg(test)]
mod tests;

pub use crate::factors::TernaryFactors;
pub use layout::{MAX_FEATURES, bytes, strip_bytes};
pub use pack::{pack, unpack};
pub use row_quantized::RowQuantized;
pub use row_quantizer::{InputQuantization, RowQuantizer};
