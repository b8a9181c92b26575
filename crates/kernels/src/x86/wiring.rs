//! How AVX2's table and AVX-512's are put together.

/// The functions in plain Rust that each table compiles for its instruction set.
pub(super) mod plain {
    pub(in crate::x86) use crate::bit_linear::row_kernels::{hadamard, quantize_row};
    pub(in crate::x86) use crate::elementwise::{
        adamw, axpy, dot, narrow, rms_norm, rms_norm_backward, rope, silu_mul, silu_mul_backward, softmax,
        softmax_backward, sum_of_squares,
    };
    pub(in crate::x86) use crate::strips::block_quantized::quantize_token;
    pub(in crate::x86) use crate::strips::pack_strip::pack_strip;
}

/// Defines a module's `TABLE`: the functions that are plain Rust compiled for `$features`, beside its
/// products.
macro_rules! table {
    ($name:literal, $features:literal, $gemm:expr, $gemm_bf16:expr) => {
        /// Handed out by `super::tables` alone, which asks the processor first.
        pub(crate) static TABLE: $crate::table::Table = FUNCTIONS;

        /// As [`TABLE`], for tables that take most of it.
        pub(crate) const FUNCTIONS: $crate::table::Table = $crate::table::Table {
            name: $name,
            product,
            operand_bf16: |x, _, _, out| narrow(x, out),
            operand_len: |tokens, in_features| tokens * in_features,
            product_bf16,
            product_strips,
            product_ternary,
            quantize_row,
            hadamard,
            pack: pack_strip,
            quantize_token,
            dot,
            axpy,
            sum_of_squares,
            rms_norm,
            rms_norm_backward,
            softmax,
            softmax_backward,
            narrow,
            attend,
            silu_mul,
            silu_mul_backward,
            rope,
            adamw,
            gemm: &$gemm,
            gemm_bf16: &$gemm_bf16,
        };

        super::wiring::compiled_for! { $features:
            fn pack_strip(codes: $crate::strips::StripFormat, rows: &[f32], in_features: usize, strip: &mut [u8]);
            fn quantize_token(
                x: &[f32],
                codes: $crate::strips::StripFormat,
                out: $crate::strips::block_quantized::TokenMut<'_>
            );
            fn quantize_row(
                activations: $crate::bit_linear::Activations,
                x: &[f32],
                codes: &mut [i8]
            ) -> (f32, i32);
            fn hadamard(x: &mut [f32]);
            fn axpy(a: f32, x: &[f32], y: &mut [f32]);
            fn sum_of_squares(x: &[f32]) -> f64;
            fn dot(a: &[f32], b: &[f32]) -> f32;
            fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32;
            fn rms_norm_backward(row: $crate::elementwise::NormRow<'_>, d_x: &mut [f32], d_weight: &mut [f32]);
            fn softmax(x: &mut [f32]) -> f32;
            fn softmax_backward(p: &[f32], d: &mut [f32]);
            fn narrow(x: &[f32], out: &mut [half::bf16]);
            fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]);
            fn silu_mul_backward(gate: &mut [f32], up: &mut [f32], d_out: &[f32]);
            fn rope(head: &mut [f32], cos: &[f32], sin: &[f32]);
            fn adamw(step: &$crate::elementwise::AdamWStep, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]);
        }
    };
}

/// Compiles functions of [`plain`] for an instruction set, with fused multiply-add.
macro_rules! compiled_for {
    ($features:literal: $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        fn $name($($arg: $type),*) $(-> $out)? {
            #[target_feature(enable = $features)]
            fn compiled($($arg: $type),*) $(-> $out)? {
                super::wiring::plain::$name::<true>($($arg),*)
            }
            // SAFETY: this table is handed out only where the processor has its instructions.
            unsafe { compiled($($arg),*) }
        }
    )*};
}

/// Compiles products of `simd` for an instruction set.
macro_rules! products {
    ($features:literal: $(fn $name:ident($factors:ty) = $product:path;)*) => {$(
        fn $name(factors: $factors, out: $crate::columns::ColumnsMut<'_>) {
            #[target_feature(enable = $features)]
            fn compiled(factors: $factors, out: $crate::columns::ColumnsMut<'_>) {
                // SAFETY: this function has the instructions.
                unsafe { $product(factors, out) }
            }
            // SAFETY: this table is handed out only where the processor has its instructions.
            unsafe { compiled(factors, out) }
        }
    )*};
}

pub(super) use {compiled_for, products, table};
