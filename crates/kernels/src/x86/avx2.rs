//! The table for AVX2 with fused multiply-add.
#![allow(unsafe_code, reason = "SIMD: functions for one instruction set")]

use super::attend::avx2 as attend;
use super::avx2_vectors::Avx2;
use crate::linear::Rows;
use crate::simd::{row_major, strip, ternary};
use crate::strips::Strips;
use crate::ternary::Ternary;
use half::bf16;

super::wiring::table!("avx2", "avx2,fma", super::gemm2::F32, super::gemm2::BF16);

super::wiring::products! { "avx2,fma":
    fn product(Rows<'_, f32>) = row_major::product::<Avx2, row_major::Floats>;
    fn product_bf16(Rows<'_, bf16>) = row_major::product::<Avx2, row_major::WidenedBf16>;
    fn product_strips(Strips<'_>) = strip::product::<Avx2, 4>;
    fn product_ternary(Ternary<'_>) = ternary::product::<Avx2, 4>;
}
