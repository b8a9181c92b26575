//! The vectors of AVX-512: 16 lanes of 32 bits, 32 registers.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(unsafe_op_in_unsafe_fn, reason = "every function makes the traits' one demand of its caller")]

use crate::simd::row_format::RowFormat;
use crate::simd::vector::{Dot, ROWS, Simd};
use half::{bf16, f16};
use std::arch::x86_64::*;

/// Features: AVX-512 F and BW.
#[derive(Clone, Copy)]
pub(super) struct Avx512;

impl Simd for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Bf16 = __m512i;
    const LANES: usize = 16;
    // 4 × 6 sums, 6 vectors of tokens and 1 of a row fill 31 of the 32 registers.
    const TILE_TOKENS: usize = 6;
    const WIDENED_TOKENS: usize = 6;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        _mm512_set1_ps(x)
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> __m512 {
        _mm512_loadu_ps(from)
    }

    #[inline(always)]
    unsafe fn load_some(from: *const f32, count: usize) -> __m512 {
        _mm512_maskz_loadu_ps((1u16 << count) - 1, from)
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, x: __m512) {
        _mm512_storeu_ps(to, x);
    }

    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        _mm512_mul_ps(a, b)
    }

    #[inline(always)]
    unsafe fn mul_add(a: __m512, b: __m512, c: __m512) -> __m512 {
        _mm512_fmadd_ps(a, b, c)
    }

    /// Spelled out, because the intrinsic `_mm512_reduce_add_ps` leaves the order to the compiler.
    #[inline(always)]
    unsafe fn total(x: __m512) -> f32 {
        let eight = halves(x);
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }

    #[inline(always)]
    unsafe fn totals([a, b, c, d]: [__m512; ROWS]) -> [f32; ROWS] {
        let fold = |low, high| {
            _mm256_add_ps(
                _mm256_permute2f128_ps::<0x20>(low, high),
                _mm256_permute2f128_ps::<0x31>(low, high),
            )
        };
        // [a a a a | b b b b] and [c c c c | d d d d], then [a a c c | b b d d]
        let (ab, cd) = (fold(halves(a), halves(b)), fold(halves(c), halves(d)));
        let two = _mm256_add_ps(_mm256_shuffle_ps::<0x44>(ab, cd), _mm256_shuffle_ps::<0xee>(ab, cd));
        let one = _mm256_add_ps(two, _mm256_movehdup_ps(two)); // a, c | b, d at even places
        let (ac, bd) = (_mm256_castps256_ps128(one), _mm256_extractf128_ps::<1>(one));
        let abcd = _mm_unpacklo_ps(_mm_shuffle_ps::<0x88>(ac, ac), _mm_shuffle_ps::<0x88>(bd, bd));
        let mut out = [0.0; ROWS];
        _mm_storeu_ps(out.as_mut_ptr(), abcd);
        out
    }

    #[inline(always)]
    unsafe fn splat_i32(x: i32) -> __m512i {
        _mm512_set1_epi32(x)
    }

    #[inline(always)]
    unsafe fn add_i32(a: __m512i, b: __m512i) -> __m512i {
        _mm512_add_epi32(a, b)
    }

    #[inline(always)]
    unsafe fn to_f32(x: __m512i) -> __m512 {
        _mm512_cvtepi32_ps(x)
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }

    #[inline(always)]
    unsafe fn load_some_bf16(from: *const bf16, count: usize) -> __m512i {
        _mm512_maskz_loadu_epi16((1u32 << count) - 1, from.cast())
    }

    #[inline(always)]
    unsafe fn even(x: __m512i) -> __m512 {
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(x))
    }

    #[inline(always)]
    unsafe fn odd(x: __m512i) -> __m512 {
        _mm512_castsi512_ps(_mm512_and_si512(x, _mm512_set1_epi32(0xffff_0000_u32 as i32)))
    }

    #[inline(always)]
    unsafe fn load_widened(from: *const bf16) -> __m512 {
        let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
        _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
    }

    #[inline(always)]
    unsafe fn load_halves(from: *const f16) -> __m512 {
        _mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))
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

/// Lanes `i` and `i + 8`.
#[inline(always)]
unsafe fn halves(x: __m512) -> __m256 {
    let high = _mm256_castpd_ps(_mm512_extractf64x4_pd::<1>(_mm512_castps_pd(x)));
    _mm256_add_ps(_mm512_castps512_ps256(x), high)
}

/// Features: those of [`Avx512`] and VNNI, which adds products of bytes to 32 bits.
impl Dot for Avx512 {
    type Stored = __m512i;
    type Token = __m512i;
    type Bytes = __m512i;
    type Small = __m512i;
    // 2 × 6 sums of a block, 2 × 6 of all, codes and inputs fill 29 of the 32 registers.
    const STRIP_TOKENS: usize = 6;
    // 2 × 8 sums, a quad's codes and the line fill 21 of the 32 registers.
    const TERNARY_TOKENS: usize = 8;
    const VECTORS_AT_ONCE: usize = 2;
    const SMALL_IS_WIDE: bool = true;
    const TERNARY_AHEAD: usize = 1 << 10;

    #[inline(always)]
    unsafe fn load_stored(from: *const u8) -> __m512i {
        _mm512_loadu_si512(from.cast())
    }

    #[inline(always)]
    unsafe fn repeat(from: *const i8) -> __m512i {
        _mm512_set1_epi32(from.cast::<i32>().read_unaligned())
    }

    #[inline(always)]
    unsafe fn bits(stored: __m512i, shift: usize, mask: u8) -> __m512i {
        let shifted = _mm512_srl_epi16(stored, _mm_cvtsi32_si128(shift as i32));
        _mm512_and_si512(shifted, _mm512_set1_epi8(mask as i8))
    }

    #[inline(always)]
    unsafe fn open(sum: __m512i) -> __m512i {
        sum
    }

    #[inline(always)]
    unsafe fn dot_small(sum: __m512i, codes: __m512i, token: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sum, codes, token)
    }

    #[inline(always)]
    unsafe fn close(_: __m512i, small: __m512i) -> __m512i {
        small
    }

    #[inline(always)]
    unsafe fn bytes(stored: __m512i) -> __m512i {
        stored
    }

    #[inline(always)]
    unsafe fn start_bytes(offset: i32) -> __m512i {
        _mm512_set1_epi32(offset)
    }

    #[inline(always)]
    unsafe fn dot_bytes(sum: __m512i, codes: __m512i, token: __m512i) -> __m512i {
        _mm512_dpbusd_epi32(sum, codes, token)
    }
}

/// Factors in `bf16` as `vdpbf16ps` multiplies them: subnormal factors count as 0. Features: BF16 too.
pub(super) struct NativeBf16;

impl RowFormat<Avx512> for NativeBf16 {
    type Value = bf16;
    type Factor = __m512bh;
    const LANES: usize = 32;
    const TOKENS: usize = Avx512::TILE_TOKENS;

    #[inline(always)]
    unsafe fn load(from: *const bf16) -> __m512bh {
        std::mem::transmute::<__m512i, __m512bh>(Avx512::load_bf16(from))
    }

    #[inline(always)]
    unsafe fn load_some(from: *const bf16, count: usize) -> __m512bh {
        std::mem::transmute::<__m512i, __m512bh>(Avx512::load_some_bf16(from, count))
    }

    #[inline(always)]
    unsafe fn mul_add(weight: __m512bh, x: __m512bh, sum: __m512) -> __m512 {
        _mm512_dpbf16_ps(sum, weight, x)
    }
}
