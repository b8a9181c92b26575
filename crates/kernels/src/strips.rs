//! Weights of 8 or 4 bits, stored in the order in which a processor reads them.
//!
//! 32 rows are a *strip*. A strip is written block by block: the codes of 32 rows at `block` consecutive k,
//! with four k of a row side by side, then the 32 scales. A product reads the strip from its first byte to
//! its last. It multiplies four codes of a row by four codes of the input in one lane, so that it needs no
//! sum across lanes. `docs/kernels.md` draws the layout.
//!
//! A weight is `(code − zero) · scale`. Each block of a row has a scale in `bf16`, which has the range of
//! `f32`; codes are chosen after the scale was rounded. Q8_0 and Q4_0 have the codes of a GGUF file and its
//! scales, which are IEEE halves. The input is quantized to int8 with one scale for
//! each block of a token, so that a token's result depends on that token alone. A block is summed in `i32`,
//! which is exact in any order. Blocks are added in `f32`, in increasing k.

pub(crate) mod block_quantized;
mod block_quantizer;
pub(crate) mod layout;
mod pack;
mod pack_codes;
pub(crate) mod pack_strip;
pub(crate) mod portable_strips;
#[cfg(test)]
mod tests;

pub use crate::factors::StripFactors;
pub use block_quantized::BlockQuantized;
pub use block_quantizer::BlockQuantizer;
pub use layout::{STRIP, StripFormat};
pub use pack::{pack, unpack};
pub use pack_codes::{copy_rows, pack_codes};
