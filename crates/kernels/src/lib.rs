//! Arithmetic on slices: matrix products, attention, norms, softmax, rotary embedding, the optimizer's
//! update.
//!
//! This crate knows no layer, no model and no file. It promises three things:
//!
//! 1. **A token's result does not depend on which tokens share the call.** The engine's products
//!    ([`linear()`]) and attention ([`attend`]) compute each output element in one fixed order. The order
//!    depends on the table and the format alone. Tiles and threads decide which elements are computed
//!    together, never how one element is summed. This makes speculative decoding equal to greedy decoding,
//!    bit for bit. The orders are:
//!    - `f32` and `bf16`: lane `j` of one vector sums the terms `k ≡ j` in increasing `k`. Then the lanes are
//!      added in a fixed tree.
//!    - int8, int4, Q8_0 and Q4_0: the sum of a block is an exact whole number. Blocks are added in
//!      increasing `k`.
//!    - ternary: the sum of the whole row is an exact whole number.
//!
//!    `tests/invariance.rs` and `tests/attention.rs` check it.
//! 2. **Dispatch is data.** A [`Table`] holds one set of functions for one instruction set. [`active`]
//!    chooses the fastest table of the processor once; `OFFRAMP_KERNELS=reference|avx2|avx512|amx` forces
//!    one. A table is handed out only if the processor can run it.
//! 3. **The reference table is the definition.** It is plain Rust for any target. Every other table is tested
//!    against it and against the formulas in `f64`.
//!
//! [`gemm`], training's large products, keeps the first promise with an order of its own: an element is
//! summed in increasing `k`, whatever the threads, the tiles and the other rows.

mod aligned;
pub mod attend;
pub mod bandwidth;
pub mod bit_linear;
mod columns;
pub mod convert;
mod dispatch;
mod elementwise;
mod exponential;
mod factors;
pub mod gemm;
mod linear;
pub mod pool;
mod reference;
mod rounding;
pub mod rows;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "no table of this target uses it yet"))]
mod simd;
pub mod strips;
mod table;
pub mod team;
pub mod ternary;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use columns::{Claims, ColumnsMut};
pub use dispatch::{UnknownTable, active, available, choose};
pub use elementwise::{AdamWStep, NormRow};
pub use factors::RowFactors;
pub use half::{bf16, f16};
pub use linear::{Job, Operand, TernaryWeight, Weight, linear, linear_with};
/// The one thread pool, for rooms whose own loops run over tokens, heads or samples.
pub use rayon;
pub use table::Table;
