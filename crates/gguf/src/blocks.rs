//! The codecs, one function for a block of each format. The layouts are ggml's (`ggml-common.h`). The order
//! of the arithmetic is that of `gguf`'s `quants.py`, so that the floats are the same.

pub(crate) mod half;
pub(crate) mod k_quants;
pub(crate) mod legacy;
pub(crate) mod ternary;
