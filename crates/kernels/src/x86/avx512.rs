//! The table for AVX-512 (F, BW and VL), with BF16 and VNNI where the processor has them.
#![allow(unsafe_code, reason = "SIMD: functions for one instruction set")]

use super::attend::avx512 as attend;
use super::avx512_vectors::{Avx512, NativeBf16};
use crate::columns::ColumnsMut;
use crate::factors::{RowFactors, StripFactors, TernaryFactors};
use crate::simd::{self, row_format, row_major};
use crate::strips::portable_strips;
use crate::ternary::portable_ternary;
use half::bf16;

super::wiring::table!(
    "avx512",
    "avx512f,avx512bw,avx512vl,avx2,fma",
    super::avx512_gemm::F32,
    super::avx512_gemm::BF16
);

super::wiring::products! { "avx512f,avx512bw,avx512vl,avx2,fma":
    fn product(RowFactors<'_, f32>) = row_major::product::<Avx512, row_format::Floats>;
    fn widened_bf16(RowFactors<'_, bf16>) = row_major::product::<Avx512, row_format::WidenedBf16>;
}

// Called only where the processor was asked for BF16.
super::wiring::products! { "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma":
    fn native_bf16(RowFactors<'_, bf16>) = row_major::product::<Avx512, NativeBf16>;
}

// Called only where the processor was asked for VNNI.
super::wiring::products! { "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma":
    fn strips_by_vnni(StripFactors<'_>) = simd::strip::product::<Avx512, 2>;
    fn ternary_by_vnni(TernaryFactors<'_>) = simd::ternary::product::<Avx512, 2>;
}

fn product_bf16(factors: RowFactors<'_, bf16>, out: ColumnsMut<'_>) {
    if is_x86_feature_detected!("avx512bf16") {
        native_bf16(factors, out)
    } else {
        widened_bf16(factors, out)
    }
}

/// What AMX takes for few tokens too.
pub(super) fn product_strips(factors: StripFactors<'_>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn without_vnni(factors: StripFactors<'_>, out: ColumnsMut<'_>) {
        portable_strips::product_strips::<true>(factors, out);
    }
    match is_x86_feature_detected!("avx512vnni") {
        true => strips_by_vnni(factors, out),
        // SAFETY: this table is handed out only where the processor has its instructions.
        false => unsafe { without_vnni(factors, out) },
    }
}

/// As [`product_strips`].
pub(super) fn product_ternary(factors: TernaryFactors<'_>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn without_vnni(factors: TernaryFactors<'_>, out: ColumnsMut<'_>) {
        portable_ternary::product_ternary::<true>(factors, out);
    }
    match is_x86_feature_detected!("avx512vnni") {
        true => ternary_by_vnni(factors, out),
        // SAFETY: this table is handed out only where the processor has its instructions.
        false => unsafe { without_vnni(factors, out) },
    }
}
