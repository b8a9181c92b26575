//! The network's arithmetic: each file holds one operation, forward beside backward.
//!
//! This folder is the only part of `train` that touches numbers. Everything is plain slices over
//! buffers that others own; sums that cross threads are taken in an order that does not depend on how
//! many threads there are.

pub mod attention;
pub mod embedding;
pub mod exit_head;
pub mod heads;
pub mod linear;
pub mod residual;
pub mod rms_norm;
pub mod swiglu;

#[cfg(test)]
pub(crate) mod finite_difference;

/// Rows that one task of a parallel loop takes: small enough to share, large enough to be worth it.
const ROWS: usize = 32;
