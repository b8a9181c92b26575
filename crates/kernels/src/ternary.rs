//! Ternary weights: −1, 0 or 1 in two bits, one step for the whole matrix (BitNet b1.58, Ma et al. 2024).
//!
//! As in [`strips`](crate::strips), rows are taken 32 at a time and written in the order in which a product reads
//! them; but there are no scales within. A line of 128 bytes holds 32 rows at 16 consecutive k: four bytes of
//! a row side by side, byte i with the codes of k + i, k + 4 + i, k + 8 + i and k + 12 + i in its bits from the
//! lowest on. A stored code is code + 1. `docs/kernels.md` draws it.
//!
//! The input is quantised to whole numbers with one step per token, so that an element is one exact sum in `i32`:
//! `y = (Σ stored · x − Σ x) · (step of the token · step of the weights)`. Any order of summation gives the same bits.

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
pub use row_quantizer::{Input, RowQuantizer};
