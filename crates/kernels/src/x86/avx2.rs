//! The table for AVX2 with fused multiply-add.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use std::arch::x86_64::*;

super::wiring::table!("avx2", "avx2,fma", super::gemm2::F32, super::gemm2::BF16);
// 4 × 3 sums, 3 token vectors and 1 row vector fill the 16 registers.
super::wiring::tiles!("avx2,fma", 8, rows: 4, tokens: 3);

#[inline]
#[target_feature(enable = "avx2")]
fn zero() -> __m256 {
    _mm256_setzero_ps()
}

/// # Safety
/// 8 floats must be readable at `from`.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(from: *const f32) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_loadu_ps(from) }
}

/// # Safety
/// `count` < 8 floats must be readable at `from`; the other lanes are zero.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_some(from: *const f32, count: usize) -> __m256 {
    let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane);
    // SAFETY: masked lanes are not read.
    unsafe { _mm256_maskload_ps(from, mask) }
}

#[inline]
#[target_feature(enable = "avx2,fma")]
fn multiply_add(a: __m256, b: __m256, sum: __m256) -> __m256 {
    _mm256_fmadd_ps(a, b, sum)
}

/// Lanes `i` and `i + 4`, then `i` and `i + 2`, then the last two.
#[inline]
#[target_feature(enable = "avx2")]
fn total(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
