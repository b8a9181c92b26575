//! The table for AVX-512 (F, BW and VL).
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use std::arch::x86_64::*;

super::wiring::table!("avx512", "avx512f,avx512vl,avx2,fma", super::gemm512::F32, super::gemm512::BF16);
// 4 × 6 sums, 6 token vectors and 1 row vector fill 31 of the 32 registers.
super::wiring::tiles!("avx512f,avx512vl,avx2,fma", 16, rows: 4, tokens: 6);

#[inline]
#[target_feature(enable = "avx512f")]
fn zero() -> __m512 {
    _mm512_setzero_ps()
}

/// # Safety
/// 16 floats must be readable at `from`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load(from: *const f32) -> __m512 {
    // SAFETY: the caller's promise.
    unsafe { _mm512_loadu_ps(from) }
}

/// # Safety
/// `count` < 16 floats must be readable at `from`; the other lanes are zero.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_some(from: *const f32, count: usize) -> __m512 {
    // SAFETY: masked lanes are not read.
    unsafe { _mm512_maskz_loadu_ps((1u16 << count) - 1, from) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn multiply_add(a: __m512, b: __m512, sum: __m512) -> __m512 {
    _mm512_fmadd_ps(a, b, sum)
}

/// Lanes `i` and `i + 8`, then `i` and `i + 4`, and so on. Spelled out, because the intrinsic
/// `_mm512_reduce_add_ps` leaves the order to the compiler.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn total(lanes: __m512) -> f32 {
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
    let eight = _mm256_add_ps(_mm512_castps512_ps256(lanes), high);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
