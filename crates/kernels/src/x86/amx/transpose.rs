//! The transpose of 16 × 16 values of 32 bits.
#![allow(unsafe_code, reason = "SIMD: functions for one instruction set")]

use super::tile::SIDE;
use std::arch::x86_64::*;

/// Row i of what comes out is column i of what goes in.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(rows: [__m512i; SIDE]) -> [__m512i; SIDE] {
    let zero = _mm512_setzero_si512();
    let (mut a, mut b) = ([zero; SIDE], [zero; SIDE]);
    // Pairs of 32 bits, then of 64, then quarters of a vector, twice.
    for i in (0..SIDE).step_by(2) {
        a[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        a[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for i in (0..SIDE).step_by(4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
    // b[4g + c] holds, in quarter q, column 4q + c of rows 4g to 4g + 3.
    let mut out = [zero; SIDE];
    for c in 0..4 {
        let low = _mm512_shuffle_i32x4::<0x88>(b[c], b[4 + c]);
        let high = _mm512_shuffle_i32x4::<0xdd>(b[c], b[4 + c]);
        let low2 = _mm512_shuffle_i32x4::<0x88>(b[8 + c], b[12 + c]);
        let high2 = _mm512_shuffle_i32x4::<0xdd>(b[8 + c], b[12 + c]);
        out[c] = _mm512_shuffle_i32x4::<0x88>(low, low2);
        out[8 + c] = _mm512_shuffle_i32x4::<0xdd>(low, low2);
        out[4 + c] = _mm512_shuffle_i32x4::<0x88>(high, high2);
        out[12 + c] = _mm512_shuffle_i32x4::<0xdd>(high, high2);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_columns() {
        if !is_x86_feature_detected!("avx512f") {
            return;
        }
        let rows: [[u32; SIDE]; SIDE] =
            std::array::from_fn(|r| std::array::from_fn(|c| (100 * r + c) as u32));
        // SAFETY: the processor has the instructions; vectors and arrays are of one size.
        let columns = unsafe {
            let transposed = transpose(std::mem::transmute::<[[u32; SIDE]; SIDE], [__m512i; SIDE]>(rows));
            std::mem::transmute::<[__m512i; SIDE], [[u32; SIDE]; SIDE]>(transposed)
        };
        for (r, c) in (0..SIDE).flat_map(|r| (0..SIDE).map(move |c| (r, c))) {
            assert_eq!(columns[c][r], rows[r][c]);
        }
    }
}
