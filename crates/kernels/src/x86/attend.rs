//! Attention's vectors for AVX2 and AVX-512.
#![allow(unsafe_code, reason = "SIMD: functions for one instruction set")]
#![allow(
    clippy::undocumented_unsafe_blocks,
    reason = "one reason stands above all of the vectors' functions"
)]

use crate::attend::Attend;
use crate::attend::lanes::attend;
use crate::attend::vector::{LANES, Vector};
use crate::columns::ColumnsMut;
use half::f16;
use std::arch::x86_64::*;

/// Handed out by the AVX2 table alone. Four rows by one vector, which is two registers, are 8 of the 16.
pub(super) fn avx2(job: &Attend<'_>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn compiled(job: &Attend<'_>, out: ColumnsMut<'_>) {
        attend::<_, 4, 1>(Pair(_mm256_setzero_ps(), _mm256_setzero_ps()), job, out);
    }
    // SAFETY: this table is handed out only where the processor has its instructions.
    unsafe { compiled(job, out) }
}

/// Handed out by the AVX-512 table alone. Eight rows by two vectors are half of the registers.
pub(super) fn avx512(job: &Attend<'_>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn compiled(job: &Attend<'_>, out: ColumnsMut<'_>) {
        attend::<_, 8, 2>(Whole(_mm512_setzero_ps()), job, out);
    }
    // SAFETY: this table is handed out only where the processor has its instructions.
    unsafe { compiled(job, out) }
}

/// Two registers of AVX2; the first is made by the function of that instruction set alone.
#[derive(Clone, Copy)]
struct Pair(__m256, __m256);

/// One register of AVX-512; the first is made by the function of that instruction set alone.
#[derive(Clone, Copy)]
struct Whole(__m512);

// SAFETY, of everything below: whoever has one of these vectors has the instructions, since the two functions
// above alone make them from nothing; what is read or written is a borrowed array; what is asked for need not
// exist.

impl Vector for Whole {
    #[inline(always)]
    fn splat(self, x: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self {
        Self(unsafe { _mm512_loadu_ps(from.as_ptr()) })
    }

    #[inline(always)]
    fn widen(self, from: &[f16; LANES]) -> Self {
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) })
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), self.0) }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    fn power(self) -> Self {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
        }
    }

    #[inline(always)]
    fn unless_below(self, x: Self, least: f32) -> Self {
        unsafe {
            let kept = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x.0, _mm512_set1_ps(least));
            Self(_mm512_maskz_mov_ps(kept, self.0))
        }
    }

    #[inline(always)]
    fn any_above(self, other: Self) -> bool {
        unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0) != 0 }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        lanes.sum()
    }

    #[inline(always)]
    fn ask_for(address: usize) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) };
    }
}

impl Vector for Pair {
    #[inline(always)]
    fn splat(self, x: f32) -> Self {
        let x = unsafe { _mm256_set1_ps(x) };
        Self(x, x)
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self {
        unsafe { Self(_mm256_loadu_ps(from.as_ptr()), _mm256_loadu_ps(from[8..].as_ptr())) }
    }

    #[inline(always)]
    fn widen(self, from: &[f16; LANES]) -> Self {
        unsafe {
            let low = _mm_loadu_si128(from.as_ptr().cast());
            let high = _mm_loadu_si128(from[8..].as_ptr().cast());
            Self(_mm256_cvtph_ps(low), _mm256_cvtph_ps(high))
        }
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to[8..].as_mut_ptr(), self.1);
        }
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        unsafe { Self(_mm256_add_ps(self.0, other.0), _mm256_add_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        unsafe { Self(_mm256_sub_ps(self.0, other.0), _mm256_sub_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        unsafe { Self(_mm256_mul_ps(self.0, other.0), _mm256_mul_ps(self.1, other.1)) }
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, term.0), _mm256_fmadd_ps(self.1, factor.1, term.1)) }
    }

    #[inline(always)]
    fn power(self) -> Self {
        unsafe { Self(power(self.0), power(self.1)) }
    }

    #[inline(always)]
    fn unless_below(self, x: Self, least: f32) -> Self {
        unsafe {
            let least = _mm256_set1_ps(least);
            let low = _mm256_and_ps(self.0, _mm256_cmp_ps::<_CMP_NLT_UQ>(x.0, least));
            Self(low, _mm256_and_ps(self.1, _mm256_cmp_ps::<_CMP_NLT_UQ>(x.1, least)))
        }
    }

    #[inline(always)]
    fn any_above(self, other: Self) -> bool {
        unsafe {
            let low = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0);
            let high = _mm256_cmp_ps::<_CMP_GT_OQ>(self.1, other.1);
            _mm256_movemask_ps(_mm256_or_ps(low, high)) != 0
        }
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        unsafe {
            let eight = _mm256_max_ps(self.0, self.1);
            let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(&mut lanes);
        lanes.sum()
    }

    #[inline(always)]
    fn ask_for(address: usize) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) };
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn power(x: __m256) -> __m256 {
    let biased = _mm256_add_epi32(_mm256_castps_si256(x), _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased))
}
