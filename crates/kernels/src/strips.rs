//! Weights in a few bits, in the order in which a processor reads them: one stream.
//!
//! Rows are taken 32 at a time, as a *strip*, and a strip is written block by block: the codes of 32 rows at
//! `block` consecutive k, four k of a row side by side, then the 32 scales. A product walks through the
//! strip from its first byte to its last, multiplies four codes of a row by four codes of the input in one
//! lane, and needs no sum across lanes. `docs/kernels.md` draws it.
//!
//! A weight is `(code − zero) · scale` with a scale per block of a row, in `bf16`: its range is that of
//! `f32`, and the codes are chosen after it was rounded. The input is quantised to int8 with one scale per
//! block of a token, so that a token's result depends on that token alone. A block is summed in `i32`,
//! which is exact in any order; blocks are added in `f32`, in increasing k.

pub(crate) mod block_quantized;
mod block_quantizer;
pub(crate) mod layout;
mod pack;
pub(crate) mod pack_strip;
pub(crate) mod portable_strips;
#[cfg(test)]
mod tests;

pub use crate::factors::StripFactors;
pub use block_quantized::BlockQuantized;
pub use block_quantizer::BlockQuantizer;
pub use layout::{Codes, STRIP};
pub use pack::{pack, unpack};
