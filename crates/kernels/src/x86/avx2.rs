//! The table for AVX2 with fused multiply-add.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::attend::avx2 as attend;
use super::tiles::{self, ROWS, Vector};
use crate::columns::ColumnsMut;
use crate::linear::Rows;
use crate::strips::Strips;
use crate::ternary::Ternary;
use half::bf16;
use std::arch::x86_64::*;

super::wiring::table!("avx2", "avx2,fma", super::gemm2::F32, super::gemm2::BF16);

fn product(factors: Rows<'_, f32>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn compiled(factors: Rows<'_, f32>, out: ColumnsMut<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { tiles::product::<F32>(factors, out) }
    }
    // SAFETY: this table is handed out only where the processor has its instructions.
    unsafe { compiled(factors, out) }
}

fn product_bf16(factors: Rows<'_, bf16>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx2,fma")]
    unsafe fn compiled(factors: Rows<'_, bf16>, out: ColumnsMut<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { tiles::product::<Bf16>(factors, out) }
    }
    // SAFETY: this table is handed out only where the processor has its instructions.
    unsafe { compiled(factors, out) }
}

fn product_strips(factors: Strips<'_>, out: ColumnsMut<'_>) {
    // SAFETY: this table is handed out only where the processor has its instructions.
    unsafe { super::strips2::product(factors, out) }
}

fn product_ternary(factors: Ternary<'_>, out: ColumnsMut<'_>) {
    // SAFETY: this table is handed out only where the processor has its instructions.
    unsafe { super::ternary2::product(factors, out) }
}

/// 8 sums of `f32` products.
#[derive(Clone, Copy)]
struct F32(__m256);

/// 8 sums of pairs of `bf16` products: the odd ones first, then the even ones.
#[derive(Clone, Copy)]
struct Bf16(__m256);

/// What the two share: `$value`s are loaded as `$factor`, at most `$lanes` of them.
macro_rules! vector {
    ($name:ident, $value:ty, $factor:ty, $lanes:literal, $load:expr, $load_some:expr, $multiply_add:expr) => {
        impl Vector for $name {
            type Value = $value;
            type Factor = $factor;
            const LANES: usize = $lanes;
            // 4 × 3 sums, 3 vectors of tokens and 1 of a row fill the 16 registers.
            const TOKENS: usize = 3;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { _mm256_setzero_ps() })
            }

            #[inline(always)]
            unsafe fn load(from: *const $value) -> $factor {
                // SAFETY: the caller's promise.
                unsafe { $load(from) }
            }

            #[inline(always)]
            unsafe fn load_some(from: *const $value, count: usize) -> $factor {
                // SAFETY: the caller's promise.
                unsafe { $load_some(from, count) }
            }

            #[inline(always)]
            unsafe fn multiply_add(self, weight: $factor, x: $factor) -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { $multiply_add(self.0, weight, x) })
            }

            #[inline(always)]
            unsafe fn total(self) -> f32 {
                // SAFETY: the caller's promise.
                unsafe { total(self.0) }
            }

            #[inline(always)]
            unsafe fn totals(four: [Self; ROWS]) -> [f32; ROWS] {
                // SAFETY: the caller's promise.
                unsafe { four.map(|sums| total(sums.0)) }
            }
        }
    };
}

vector!(
    F32,
    f32,
    __m256,
    8,
    |from| _mm256_loadu_ps(from),
    |from, count: usize| {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane);
        _mm256_maskload_ps(from, mask)
    },
    |sum, weight, x| _mm256_fmadd_ps(weight, x, sum)
);
vector!(
    Bf16,
    bf16,
    __m256i,
    16,
    |from: *const bf16| _mm256_loadu_si256(from.cast()),
    |from: *const bf16, count: usize| {
        let mut values = [bf16::ZERO; 16];
        values[..count].copy_from_slice(std::slice::from_raw_parts(from, count));
        _mm256_loadu_si256(values.as_ptr().cast())
    },
    |sum, weight, x| {
        let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
        let odd = |v| _mm256_castsi256_ps(_mm256_and_si256(v, upper));
        let even = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v));
        _mm256_fmadd_ps(even(weight), even(x), _mm256_fmadd_ps(odd(weight), odd(x), sum))
    }
);

/// Lanes `i` and `i + 4`, then `i` and `i + 2`, then the last two.
#[inline]
#[target_feature(enable = "avx2")]
fn total(lanes: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}
