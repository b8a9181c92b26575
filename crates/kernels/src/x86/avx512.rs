//! The table for AVX-512 (F, BW and VL), with BF16 and VNNI where the processor has them.
#![allow(unsafe_code, reason = "SIMD: functions for one instruction set")]

use super::attend::avx512 as attend;
use super::avx512_vectors::{Avx512, NativeBf16};
use crate::columns::ColumnsMut;
use crate::linear::Rows;
use crate::simd::{self, row_major};
use crate::strips::{self, Strips};
use crate::ternary::{self, Ternary};
use half::bf16;

super::wiring::table!(
    "avx512",
    "avx512f,avx512bw,avx512vl,avx2,fma",
    super::gemm512::F32,
    super::gemm512::BF16
);

super::wiring::products! { "avx512f,avx512bw,avx512vl,avx2,fma":
    fn product(Rows<'_, f32>) = row_major::product::<Avx512, row_major::Floats>;
    fn widened_bf16(Rows<'_, bf16>) = row_major::product::<Avx512, row_major::WidenedBf16>;
}

// Called only where the processor was asked for BF16.
super::wiring::products! { "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma":
    fn native_bf16(Rows<'_, bf16>) = row_major::product::<Avx512, NativeBf16>;
}

// Called only where the processor was asked for VNNI.
super::wiring::products! { "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma":
    fn strips_by_vnni(Strips<'_>) = simd::strip::product::<Avx512, 2>;
    fn ternary_by_vnni(Ternary<'_>) = simd::ternary::product::<Avx512, 2>;
}

fn product_bf16(factors: Rows<'_, bf16>, out: ColumnsMut<'_>) {
    if is_x86_feature_detected!("avx512bf16") {
        native_bf16(factors, out)
    } else {
        widened_bf16(factors, out)
    }
}

/// What AMX takes for few tokens too.
pub(super) fn product_strips(factors: Strips<'_>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn without_vnni(factors: Strips<'_>, out: ColumnsMut<'_>) {
        strips::lanes::product_strips::<true>(factors, out);
    }
    match is_x86_feature_detected!("avx512vnni") {
        true => strips_by_vnni(factors, out),
        // SAFETY: this table is handed out only where the processor has its instructions.
        false => unsafe { without_vnni(factors, out) },
    }
}

/// As [`product_strips`].
pub(super) fn product_ternary(factors: Ternary<'_>, out: ColumnsMut<'_>) {
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
    fn without_vnni(factors: Ternary<'_>, out: ColumnsMut<'_>) {
        ternary::lanes::product_ternary::<true>(factors, out);
    }
    match is_x86_feature_detected!("avx512vnni") {
        true => ternary_by_vnni(factors, out),
        // SAFETY: this table is handed out only where the processor has its instructions.
        false => unsafe { without_vnni(factors, out) },
    }
}
