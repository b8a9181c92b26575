//! Products written once for every instruction set.
//!
//! A kernel here is generic over [`vector::Simd`], the vectors of an instruction set, and where it multiplies
//! codes over [`vector::Dot`] too. Each table instantiates the kernels with its own vectors; see the trait
//! for who may call what.

pub(crate) mod row_format;
pub(crate) mod row_major;
pub(crate) mod strip;
pub(crate) mod ternary;
#[cfg(test)]
mod tests;
pub(crate) mod vector;
