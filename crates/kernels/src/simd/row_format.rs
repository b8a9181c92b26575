//! The number formats of a row-major product.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::vector::Simd;
use half::bf16;

/// How the factors of a format are loaded and multiplied.
///
/// # Safety
/// Of all functions: the processor must have the instructions of `S`; of the loads: the values must be
/// readable.
pub(crate) trait RowFormat<S: Simd> {
    /// What a factor is made of.
    type Value: Copy;
    /// A vector of a factor.
    type Factor: Copy;
    /// Values of such a vector.
    const LANES: usize;
    /// Tokens of a tile: as many as the registers hold beside [`ROWS`](super::vector::ROWS) rows.
    const TOKENS: usize;

    unsafe fn load(from: *const Self::Value) -> Self::Factor;
    /// The first `count` < `LANES` values; the other lanes are zero and not read.
    unsafe fn load_some(from: *const Self::Value, count: usize) -> Self::Factor;
    unsafe fn mul_add(weight: Self::Factor, x: Self::Factor, sum: S::F32) -> S::F32;
}

/// Factors in `f32`.
pub(crate) struct Floats;

/// Factors in `bf16`, widened and multiplied as `f32`: the odd ones first, then the even ones.
pub(crate) struct WidenedBf16;

impl<S: Simd> RowFormat<S> for Floats {
    type Value = f32;
    type Factor = S::F32;
    const LANES: usize = S::LANES;
    const TOKENS: usize = S::TILE_TOKENS;

    #[inline(always)]
    unsafe fn load(from: *const f32) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe { S::load(from) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe { S::load_some(from, count) }
    }

    #[inline(always)]
    unsafe fn mul_add(weight: S::F32, x: S::F32, sum: S::F32) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe { S::mul_add(weight, x, sum) }
    }
}

impl<S: Simd> RowFormat<S> for WidenedBf16 {
    type Value = bf16;
    type Factor = S::Bf16;
    const LANES: usize = 2 * S::LANES;
    const TOKENS: usize = S::WIDENED_TOKENS;

    #[inline(always)]
    unsafe fn load(from: *const bf16) -> S::Bf16 {
        // SAFETY: the caller's promise.
        unsafe { S::load_bf16(from) }
    }

    #[inline(always)]
    unsafe fn load_some(from: *const bf16, count: usize) -> S::Bf16 {
        // SAFETY: the caller's promise.
        unsafe { S::load_some_bf16(from, count) }
    }

    #[inline(always)]
    unsafe fn mul_add(weight: S::Bf16, x: S::Bf16, sum: S::F32) -> S::F32 {
        // SAFETY: the caller's promise.
        unsafe { S::mul_add(S::even(weight), S::even(x), S::mul_add(S::odd(weight), S::odd(x), sum)) }
    }
}
