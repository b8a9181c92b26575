//! The table for AVX-512 (F, BW and VL), with BF16 and VNNI where the processor has them.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]

use super::attend::avx512 as attend;
use super::tiles::{self, ROWS, Vector};
use crate::columns::ColumnsMut;
use crate::linear::Rows;
use crate::strips::Strips;
use crate::strips::lanes::product_strips as product_in_lanes;
use crate::ternary::Ternary;
use crate::ternary::lanes::product_ternary as ternary_in_lanes;
use half::bf16;
use std::arch::x86_64::*;

super::wiring::table!(
    "avx512",
    "avx512f,avx512bw,avx512vl,avx2,fma",
    super::gemm512::F32,
    super::gemm512::BF16
);

/// Handed out by the AVX-512 table alone.
fn product(factors: Rows<'_, f32>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    unsafe fn compiled(factors: Rows<'_, f32>, out: ColumnsMut<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { tiles::product::<F32>(factors, out) }
    }
    // SAFETY: this table is handed out only where the processor has its instructions.
    unsafe { compiled(factors, out) }
}

fn product_bf16(factors: Rows<'_, bf16>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn native(factors: Rows<'_, bf16>, out: ColumnsMut<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { tiles::product::<Bf16>(factors, out) }
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    unsafe fn widened(factors: Rows<'_, bf16>, out: ColumnsMut<'_>) {
        // SAFETY: this function has the instructions.
        unsafe { tiles::product::<WidenedBf16>(factors, out) }
    }
    // SAFETY: this table is handed out only where the processor has its instructions, and BF16's are asked for.
    unsafe {
        if is_x86_feature_detected!("avx512bf16") { native(factors, out) } else { widened(factors, out) }
    }
}

/// 16 sums of `f32` products.
#[derive(Clone, Copy)]
struct F32(__m512);

/// 16 sums of pairs of `bf16` products, as `vdpbf16ps` makes them: subnormal factors count as 0.
#[derive(Clone, Copy)]
struct Bf16(__m512);

/// The same without `vdpbf16ps`: the odd products first, then the even ones.
#[derive(Clone, Copy)]
struct WidenedBf16(__m512);

/// What the three share: `$value`s are loaded as `$factor`, at most `$lanes` of them.
macro_rules! vector {
    ($name:ident, $value:ty, $factor:ty, $lanes:literal, $load:expr, $load_some:expr, $multiply_add:expr) => {
        impl Vector for $name {
            type Value = $value;
            type Factor = $factor;
            const LANES: usize = $lanes;
            // 4 × 6 sums, 6 vectors of tokens and 1 of a row fill 31 of the 32 registers.
            const TOKENS: usize = 6;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller's promise.
                Self(unsafe { _mm512_setzero_ps() })
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
                unsafe { totals([four[0].0, four[1].0, four[2].0, four[3].0]) }
            }
        }
    };
}

vector!(
    F32,
    f32,
    __m512,
    16,
    |from| _mm512_loadu_ps(from),
    |from, count| _mm512_maskz_loadu_ps((1u16 << count) - 1, from),
    |sum, weight, x| _mm512_fmadd_ps(weight, x, sum)
);
vector!(
    Bf16,
    bf16,
    __m512i,
    32,
    |from: *const bf16| _mm512_loadu_si512(from.cast()),
    |from: *const bf16, count| _mm512_maskz_loadu_epi16((1u32 << count) - 1, from.cast()),
    |sum, weight: __m512i, x: __m512i| {
        let [weight, x] = [weight, x].map(|v| std::mem::transmute::<__m512i, __m512bh>(v));
        _mm512_dpbf16_ps(sum, weight, x)
    }
);
vector!(
    WidenedBf16,
    bf16,
    __m512i,
    32,
    |from: *const bf16| _mm512_loadu_si512(from.cast()),
    |from: *const bf16, count| _mm512_maskz_loadu_epi16((1u32 << count) - 1, from.cast()),
    |sum, weight, x| {
        let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
        let odd = |v| _mm512_castsi512_ps(_mm512_and_si512(v, upper));
        let even = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(v));
        _mm512_fmadd_ps(even(weight), even(x), _mm512_fmadd_ps(odd(weight), odd(x), sum))
    }
);

/// Lanes `i` and `i + 8`, then `i` and `i + 4`, and so on. Spelled out, because the intrinsic
/// `_mm512_reduce_add_ps` leaves the order to the compiler.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn total(lanes: __m512) -> f32 {
    let eight = halves(lanes);
    let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
}

/// Four sums at once, each in the order of [`total`].
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn totals([a, b, c, d]: [__m512; 4]) -> [f32; 4] {
    let fold = |low, high| {
        _mm256_add_ps(_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high))
    };
    // [a a a a | b b b b] and [c c c c | d d d d], then [a a c c | b b d d]
    let (ab, cd) = (fold(halves(a), halves(b)), fold(halves(c), halves(d)));
    let two = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
    let one = _mm256_add_ps(two, _mm256_movehdup_ps(two)); // a, c | b, d at even places
    let (ac, bd) = (_mm256_castps256_ps128(one), _mm256_extractf128_ps::<1>(one));
    let abcd = _mm_unpacklo_ps(_mm_shuffle_ps::<0x88>(ac, ac), _mm_shuffle_ps::<0x88>(bd, bd));
    let mut out = [0.0; 4];
    // SAFETY: four floats.
    unsafe { _mm_storeu_ps(out.as_mut_ptr(), abcd) };
    out
}

/// Lanes `i` and `i + 8`.
#[inline]
#[target_feature(enable = "avx512f,avx2")]
fn halves(lanes: __m512) -> __m256 {
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(lanes)));
    _mm256_add_ps(_mm512_castps512_ps256(lanes), high)
}

fn product_strips(factors: Strips<'_>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn lanes(factors: Strips<'_>, out: ColumnsMut<'_>) {
        product_in_lanes::<true>(factors, out);
    }
    // SAFETY: this table is handed out only where the processor has its instructions, and VNNI's are asked for.
    unsafe {
        match is_x86_feature_detected!("avx512vnni") {
            true => super::strips512::product(factors, out),
            false => lanes(factors, out),
        }
    }
}

fn product_ternary(factors: Ternary<'_>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn lanes(factors: Ternary<'_>, out: ColumnsMut<'_>) {
        ternary_in_lanes::<true>(factors, out);
    }
    // SAFETY: this table is handed out only where the processor has its instructions, and VNNI's are asked for.
    unsafe {
        match is_x86_feature_detected!("avx512vnni") {
            true => super::ternary512::product(factors, out),
            false => lanes(factors, out),
        }
    }
}
