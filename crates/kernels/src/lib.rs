//! Arithmetic on slices: products, norms, softmax, rotary embedding, the optimiser's update.
//!
//! This room knows no layer, no model and no file. It promises three things:
//!
//! 1. **A token's arithmetic does not depend on how many tokens share the call.** Every product of
//!    the engine ([`linear()`], [`Table::product`]) sums each output element in one fixed order, which the
//!    table and the format decide: lane `j` of one vector takes the terms `k ≡ j` in increasing `k`, then
//!    the lanes are added in a fixed tree; or, of quantised factors, each block is an exact whole number, and
//!    blocks are added in increasing `k`; of ternary weights the whole element is. Tiling and threads choose *which* elements are computed together,
//!    never *how*. Only then is "speculative = greedy" an equality and not a tolerance.
//!    `tests/invariance.rs` holds it, and for [`attend`] `tests/attention.rs`.
//! 2. **Dispatch is data.** A [`Table`] is one set of functions for one instruction set. [`active`]
//!    chooses the best that the processor has, once; `OFFRAMP_KERNELS=reference|avx2|avx512|amx` forces
//!    one. Holding a table other than the reference is the proof that the processor can run it.
//! 3. **The reference is the definition**: plain Rust for any target, and every other table is tested
//!    against it and against the formulas in `f64`.
//!
//! [`gemm`], training's large products, keeps the first promise in an order of its own: an element is summed in
//! increasing k, whatever the threads, the cut and the other rows.

mod aligned;
pub mod attend;
pub mod bandwidth;
pub mod bit_linear;
mod columns;
pub mod convert;
pub mod gemm;
mod lanes;
mod linear;
pub mod pool;
mod reference;
pub mod rows;
pub mod strips;
mod table;
pub mod team;
pub mod ternary;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use columns::{Claims, ColumnsMut};
pub use half::{bf16, f16};
pub use linear::{Job, Operand, Rows, TernaryWeight, Weight, linear, linear_with};
/// The one thread pool, for rooms whose own loops run over tokens, heads or samples.
pub use rayon;
pub use table::{AdamWStep, NormRow, TILE_TOKENS, Table, UnknownTable, active, available, choose};
