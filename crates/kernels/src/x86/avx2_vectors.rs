//! The vectors of AVX2: 8 lanes of 32 bits, 16 registers.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(unsafe_op_in_unsafe_fn, reason = "every function makes the traits' one demand of its caller")]

use crate::simd::vector::{Dot, FOUR_BIT_STEPS, ROWS, Simd, TWO_BIT_STEPS};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// Features: AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(super) struct Avx2;

impl Simd for Avx2 {
    type F32 = __m256;
    type I32 = __m256i;
    type Bf16 = __m256i;
    const LANES: usize = 8;
    // 4 × 3 sums, 3 vectors of tokens and 1 of a row fill the 16 registers.
    const TILE_TOKENS: usize = 3;
    const WIDENED_TOKENS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        _mm256_set1_ps(x)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m256 {
        _mm256_loadu_ps(from)
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> __m256 {
        let lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        _mm256_maskload_ps(from, _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), lane))
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m256) {
        _mm256_storeu_ps(to, x);
    }

    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        _mm256_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m256, b: __m256, c: __m256) -> __m256 {
        _mm256_fmadd_ps(a, b, c)
    }

    #[inline(always)]
    unsafe fn total(x: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps::<1>(x));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }

    #[inline(always)]
    unsafe fn totals(rows: [__m256; ROWS]) -> [f32; ROWS] {
        rows.map(|sums| Self::total(sums))
    }

    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m256i {
        _mm256_set1_epi32(x)
    }

    #[inline(always)]
    unsafe fn add_i32(a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(a, b)
    }

    #[inline(always)]
    unsafe fn to_f32(x: __m256i) -> __m256 {
        _mm256_cvtepi32_ps(x)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> __m256i {
        _mm256_loadu_si256(from.cast())
    }

    #[inline(always)]
    unsafe fn load_some_bf16(from: *const bf16, count: usize) -> __m256i {
        let mut values = [bf16::ZERO; 2 * Self::LANES];
        values[..count].copy_from_slice(std::slice::from_raw_parts(from, count));
        _mm256_loadu_si256(values.as_ptr().cast())
    }

    #[inline(always)]
    unsafe fn even(x: __m256i) -> __m256 {
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(x))
    }

    #[inline(always)]
    unsafe fn odd(x: __m256i) -> __m256 {
        _mm256_castsi256_ps(_mm256_and_si256(x, _mm256_set1_epi32(0xffff_0000_u32 as i32)))
    }

    #[inline(always)]
    unsafe fn load_widened(from: *const bf16) -> __m256 {
        let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const f16) -> __m256 {
        _mm256_cvtph_ps(_mm_loadu_si128(from.cast()))
    }

    #[inline(always)]
    unsafe fn prefetch_l1(address: *const u8) {
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }

    #[inline(always)]
    unsafe fn prefetch_l2(address: *const u8) {
        _mm_prefetch::<_MM_HINT_T1>(address.cast());
    }
}

// Pairs of products of small codes fit 16 bits: stored codes have no sign, a token's are at least −128.
const _: () = assert!(FOUR_BIT_STEPS * 2 * 15 * 128 < 1 << 15 && TWO_BIT_STEPS * 2 * 3 * 128 < 1 << 15);

/// Features: AVX2. It multiplies bytes with a sign by bytes without, and adds the products in pairs of 16
/// bits.
impl Dot for Avx2 {
    type Stored = __m256i;
    type Token = __m256i;
    /// With their signs, and without.
    type Bytes = [__m256i; 2];
    /// Pairs of 16 bits.
    type Small = __m256i;
    const STRIP_TOKENS: usize = 4;
    const TERNARY_TOKENS: usize = 4;
    const VECTORS_AT_ONCE: usize = 2;
    const SMALL_IS_WIDE: bool = false;
    const TERNARY_AHEAD: usize = 2 << 10;

    #[inline(always)]
    unsafe fn load_stored(from: *const u8) -> __m256i {
        _mm256_loadu_si256(from.cast())
    }

    #[inline(always)]
    unsafe fn repeat(from: *const i8) -> __m256i {
        _mm256_set1_epi32(from.cast::<i32>().read_unaligned())
    }

    #[inline(always)]
    unsafe fn bits(stored: __m256i, shift: usize, mask: u8) -> __m256i {
        let shifted = _mm256_srl_epi16(stored, _mm_cvtsi32_si128(shift as i32));
        _mm256_and_si256(shifted, _mm256_set1_epi8(mask as i8))
    }

    #[inline(always)]
    unsafe fn open(_: __m256i) -> __m256i {
        _mm256_setzero_si256()
    }

    #[inline(always)]
    unsafe fn dot_small(sum: __m256i, codes: __m256i, token: __m256i) -> __m256i {
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, token))
    }

    #[inline(always)]
    unsafe fn close(sum: __m256i, small: __m256i) -> __m256i {
        _mm256_add_epi32(sum, _mm256_madd_epi16(small, _mm256_set1_epi16(1)))
    }

    #[inline(always)]
    unsafe fn bytes(stored: __m256i) -> [__m256i; 2] {
        let signed = _mm256_xor_si256(stored, _mm256_set1_epi8(i8::MIN));
        [signed, _mm256_abs_epi8(signed)]
    }

    #[inline(always)]
    unsafe fn start_bytes(_: i32) -> __m256i {
        _mm256_setzero_si256() // the codes have their signs: there is no offset to add
    }

    #[inline(always)]
    unsafe fn dot_bytes(sum: __m256i, [signed, unsigned]: [__m256i; 2], token: __m256i) -> __m256i {
        // Tokens' codes of eight bits are at least −127: at most 2 · 128 · 127 < 2¹⁵.
        let pairs = _mm256_maddubs_epi16(unsigned, _mm256_sign_epi8(token, signed));
        _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    }
}
