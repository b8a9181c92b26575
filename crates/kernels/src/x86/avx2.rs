//! The table for AVX2 with fused multiply-add.
#![allow(unsafe_code, reason = "SIMD: functions for one instruction set")]

use super::attend::avx2 as attend;
use super::avx2_vectors::Avx2;
use crate::factors::{RowFactors, StripFactors, TernaryFactors};
use crate::simd::{row_format, row_major, strip, ternary};
use half::bf16;

super::wiring::table!("avx2", "avx2,fma", super::avx2_gemm::F32, super::avx2_gemm::BF16);

super::wiring::products! { "avx2,fma,f16c":
    fn product(RowFactors<'_, f32>) = row_major::product::<Avx2, row_format::Floats>;
    fn product_bf16(RowFactors<'_, bf16>) = row_major::product::<Avx2, row_format::WidenedBf16>;
    fn product_strips(StripFactors<'_>) = strip::product::<Avx2, 4>;
    fn product_ternary(TernaryFactors<'_>) = ternary::product::<Avx2, 4>;
}
