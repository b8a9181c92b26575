//! Tables for x86-64, each handed out only where the processor has its instructions.

mod amx;
mod attend;
mod avx2;
mod avx2_gemm;
mod avx2_gemm_pack;
mod avx2_vectors;
mod avx512;
mod avx512_gemm;
mod avx512_gemm_pack;
mod avx512_vectors;
mod wiring;

use crate::table::Table;

/// The tables that this processor can run, the fastest last.
pub(crate) fn tables() -> Vec<&'static Table> {
    let mut tables = Vec::new();
    // Every processor with AVX2 has F16C.
    let avx2 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("f16c");
    if avx2 {
        tables.push(&avx2::TABLE);
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl");
        if avx512 {
            tables.push(&avx512::TABLE);
            let products = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512bf16");
            if products && amx::available() {
                tables.push(&amx::TABLE);
            }
        }
    }
    tables
}
