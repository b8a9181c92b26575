//! Products of strips for AVX2: signed bytes by unsigned ones, added in pairs of 16 bits.
//!
//! Pairs of int8 fill 16 bits, and are added to 32 at once. Pairs of a nibble and a byte are at most
//! 2 · 15 · 127 = 3810, so that the eight of a block are added in 16 bits. Either way a block's sum is exact.
#![allow(unsafe_code, reason = "SIMD: vector loads through pointers, functions for one instruction set")]
#![allow(clippy::needless_range_loop, reason = "counts of registers, fixed for the compiler")]

use crate::columns::ColumnsMut;
use crate::strips::{Codes, QUAD, Quantised, STRIP, Strips};
use std::arch::x86_64::*;

/// Tokens of a tile.
const TOKENS: usize = 4;
/// Vectors of a strip's rows, and bytes of one and of all of them at four k.
const VECTORS: usize = 4;
const BYTES: usize = 32;
const CODES: usize = STRIP * QUAD;
/// Rows of a vector's sums.
const LANES: usize = 8;
const LINE: usize = 64;
/// Bytes asked for ahead of those multiplied.
const AHEAD: usize = 2 << 10;

/// Some tokens of a product, and where their sums with one strip go.
#[derive(Clone, Copy)]
struct Tile<'a> {
    x: Quantised<'a>,
    token: usize,
    out: *mut f32, // of the first token and row
    stride: usize,
    rows: usize,
}

/// See [`Table::product_strips`](crate::Table::product_strips).
#[target_feature(enable = "avx2,fma")]
pub(super) fn product(factors: Strips<'_>, mut out: ColumnsMut<'_>) {
    let (tokens, rows) = (out.rows(), out.columns());
    let bytes = factors.check(tokens, rows);
    let Strips { codes, x, weight } = factors;
    let tiles = tokens.div_ceil(TOKENS);
    for (first, strip) in (0..rows).step_by(STRIP).zip(weight.chunks_exact(bytes)) {
        for tile in 0..tiles {
            // Tiles of like sizes: 5 tokens are 2 and 3.
            let [token, end] = [tile, tile + 1].map(|t| tokens * t / tiles);
            let stride = out.stride();
            let start = out.as_mut_ptr().wrapping_add(token * stride + first);
            let part = Tile { x, token, out: start, stride, rows: STRIP.min(rows - first) };
            // SAFETY: `check` says that tokens and strip have their blocks; the output has these elements.
            unsafe {
                match codes {
                    Codes::Int8 => with_tokens::<Int8>(part, strip, end - token),
                    Codes::Int4 => with_tokens::<Int4>(part, strip, end - token),
                }
            }
        }
    }
}

/// How stored codes are multiplied and added up.
trait Stored {
    const CODES: Codes;
    /// A step's vector of codes, ready for all tokens.
    type Ready: Copy;
    /// Quads of k in a vector.
    const QUADS: usize;
    /// # Safety
    /// Of all: the processor must have the instructions.
    unsafe fn ready(stored: __m256i, quad: usize) -> Self::Ready;
    /// Adds the products by four inputs, repeated.
    unsafe fn add(sum: __m256i, codes: Self::Ready, four: __m256i) -> __m256i;
    /// A block's whole sums of 8 rows.
    unsafe fn total(sum: __m256i, offset: i32) -> __m256i;
}

struct Int8;
struct Int4;

impl Stored for Int8 {
    const CODES: Codes = Codes::Int8;
    /// With their signs, and without.
    type Ready = [__m256i; 2];
    const QUADS: usize = 1;

    #[inline(always)]
    unsafe fn ready(stored: __m256i, _: usize) -> [__m256i; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let signed = _mm256_xor_si256(stored, _mm256_set1_epi8(i8::MIN));
            [signed, _mm256_abs_epi8(signed)]
        }
    }

    #[inline(always)]
    unsafe fn add(sum: __m256i, [signed, unsigned]: [__m256i; 2], four: __m256i) -> __m256i {
        // At most 2 · 128 · 127 < 2¹⁵.
        // SAFETY: the caller's promise.
        unsafe {
            let pairs = _mm256_maddubs_epi16(unsigned, _mm256_sign_epi8(four, signed));
            _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }

    #[inline(always)]
    unsafe fn total(sum: __m256i, _: i32) -> __m256i {
        sum // the codes had their signs: there is no offset to add
    }
}

impl Stored for Int4 {
    const CODES: Codes = Codes::Int4;
    type Ready = __m256i;
    const QUADS: usize = 2;

    #[inline(always)]
    unsafe fn ready(stored: __m256i, quad: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let low = _mm256_set1_epi8(15);
            match quad {
                0 => _mm256_and_si256(stored, low),
                _ => _mm256_and_si256(_mm256_srli_epi16::<4>(stored), low),
            }
        }
    }

    #[inline(always)]
    unsafe fn add(sum: __m256i, codes: __m256i, four: __m256i) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, four)) }
    }

    #[inline(always)]
    unsafe fn total(sum: __m256i, offset: i32) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe { _mm256_add_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), _mm256_set1_epi32(offset)) }
    }
}

// The eight quads of a block, in 16 bits.
const _: () = assert!(Codes::Int4.block() / QUAD * 2 * 15 * 127 < 1 << 15);

/// # Safety
/// Of this and what follows: the strip must have a tile's blocks, the tile its tokens, the output its elements.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn with_tokens<S: Stored>(tile: Tile<'_>, strip: &[u8], tokens: usize) {
    // Sums of a block fill half of the 16 registers; where they would be more, a block is gone through twice.
    // SAFETY: the caller's promise.
    unsafe {
        match tokens {
            1 => multiply::<S, 1, 4>(tile, strip),
            2 => multiply::<S, 2, 4>(tile, strip),
            3 => multiply::<S, 3, 2>(tile, strip),
            _ => multiply::<S, TOKENS, 2>(tile, strip),
        }
    }
}

/// # Safety
/// As [`with_tokens`].
#[target_feature(enable = "avx2,fma")]
unsafe fn multiply<S: Stored, const T: usize, const V: usize>(tile: Tile<'_>, strip: &[u8]) {
    let Tile { x, token, .. } = tile;
    let (blocks, block) = (x.blocks, S::CODES.block());
    let steps = block / QUAD / S::QUADS;
    let mut sums = [[_mm256_setzero_ps(); VECTORS]; T];
    let mut stored = strip.as_ptr();
    for b in 0..blocks {
        let inputs = x.codes(b, token).as_ptr();
        let (scales, offsets) = (&x.scales(b, token)[..T], &x.offsets(b, token)[..T]);
        // SAFETY: the strip has `blocks` of `steps` times 4 vectors and 2 of scales, the tokens their inputs; what
        // is asked for ahead need not exist.
        unsafe {
            let of_rows = stored.add(steps * CODES);
            for first in (0..VECTORS).step_by(V) {
                let mut whole = [[_mm256_setzero_si256(); V]; T];
                for step in 0..steps {
                    let here = stored.add(step * CODES);
                    for line in (0..CODES).step_by(LINE).filter(|_| first == 0) {
                        _mm_prefetch::<_MM_HINT_T0>(here.wrapping_add(AHEAD + line).cast());
                    }
                    for quad in 0..S::QUADS {
                        let fours: [_; T] = std::array::from_fn(|t| {
                            let at = t * block + (step * S::QUADS + quad) * QUAD;
                            _mm256_set1_epi32(inputs.add(at).cast::<i32>().read_unaligned())
                        });
                        for v in 0..V {
                            let codes = _mm256_loadu_si256(here.add((first + v) * BYTES).cast());
                            let codes = S::ready(codes, quad);
                            for t in 0..T {
                                whole[t][v] = S::add(whole[t][v], codes, fours[t]);
                            }
                        }
                    }
                }
                for v in 0..V {
                    let eight = _mm_loadu_si128(of_rows.add((first + v) * 2 * LANES).cast());
                    let eight = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(eight)));
                    for t in 0..T {
                        let scale = _mm256_set1_ps(scales[t]);
                        let total = S::total(whole[t][v], offsets[t]);
                        let sum = &mut sums[t][first + v];
                        *sum = _mm256_fmadd_ps(_mm256_mul_ps(eight, scale), _mm256_cvtepi32_ps(total), *sum);
                    }
                }
            }
            stored = of_rows.add(LINE);
        }
    }
    for (t, sums) in sums.iter().enumerate() {
        let mut of_token = [0f32; STRIP];
        for (v, &sum) in sums.iter().enumerate() {
            // SAFETY: 8 of 32 floats.
            unsafe { _mm256_storeu_ps(of_token.as_mut_ptr().add(v * LANES), sum) };
        }
        let to = tile.out.wrapping_add(t * tile.stride);
        // SAFETY: the output has so many rows of this strip.
        unsafe { to.copy_from_nonoverlapping(of_token.as_ptr(), tile.rows) };
    }
}
