//! The reference table: plain Rust for any target, and the definition of the others.

use crate::attend;
use crate::bit_linear::row_kernels;
use crate::columns::ColumnsMut;
use crate::elementwise;
use crate::factors::RowFactors;
use crate::gemm::micro::Micro;
use crate::gemm::portable;
use crate::strips::{block_quantized, pack_strip, portable_strips};
use crate::table::Table;
use crate::ternary::portable_ternary;
use half::bf16;

/// Written with arrays of lanes, which the compiler vectorizes for any target. Nothing is fused: a fused
/// multiply-add would be a library call on targets that lack it.
pub(crate) static TABLE: Table = Table {
    name: "reference",
    product,
    operand_bf16: |x, _, _, out| elementwise::narrow::<false>(x, out),
    operand_len: |tokens, in_features| tokens * in_features,
    product_bf16,
    product_strips: portable_strips::product_strips::<false>,
    product_ternary: portable_ternary::product_ternary::<false>,
    quantize_row: row_kernels::quantize_row::<false>,
    hadamard: row_kernels::hadamard::<false>,
    pack: pack_strip::pack_strip::<false>,
    quantize_token: block_quantized::quantize_token::<false>,
    dot: elementwise::dot::<false>,
    axpy: elementwise::axpy::<false>,
    sum_of_squares: elementwise::sum_of_squares::<false>,
    rms_norm: elementwise::rms_norm::<false>,
    rms_norm_backward: elementwise::rms_norm_backward::<false>,
    softmax: elementwise::softmax::<false>,
    softmax_backward: elementwise::softmax_backward::<false>,
    narrow: elementwise::narrow::<false>,
    attend: |job, out| attend::lanes::attend::<_, 2, 1>([0.0; 16], job, out),
    silu_mul: elementwise::silu_mul::<false>,
    silu_mul_backward: elementwise::silu_mul_backward::<false>,
    rope: elementwise::rope::<false>,
    adamw: elementwise::adamw::<false>,
    gemm: &GEMM,
    gemm_bf16: &GEMM_BF16,
};

static GEMM: Micro = Micro {
    rows: 4,
    columns: 16,
    per_word: 1,
    step: 1,
    pack_left: portable::pack,
    pack_right: portable::pack,
    tiles: |panels, out| panels.each(4, 16, out, portable::tile::<4, 16>),
};

static GEMM_BF16: Micro = Micro {
    per_word: 2,
    pack_left: portable::pack_bf16,
    pack_right: portable::pack_bf16,
    tiles: |panels, out| panels.each(4, 16, out, portable::tile_bf16::<4, 16>),
    ..GEMM
};

fn product(factors: RowFactors<'_, f32>, mut out: ColumnsMut<'_>) {
    factors.check(out.rows(), out.columns());
    let RowFactors { x, weight, in_features } = factors;
    for (r, weight) in weight.chunks_exact(in_features).enumerate() {
        by_all(x, weight, r, &mut out);
    }
}

/// Widens first, which is exact, and multiplies as `f32`.
fn product_bf16(factors: RowFactors<'_, bf16>, mut out: ColumnsMut<'_>) {
    factors.check(out.rows(), out.columns());
    let RowFactors { x, weight, in_features } = factors;
    let widen = |narrow: &[bf16], wide: &mut [f32]| {
        for (wide, narrow) in wide.iter_mut().zip(narrow) {
            *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
        }
    };
    let (mut tokens, mut row) = (vec![0.0; x.len()], vec![0.0; in_features]);
    widen(x, &mut tokens);
    for (r, weight) in weight.chunks_exact(in_features).enumerate() {
        widen(weight, &mut row);
        by_all(&tokens, &row, r, &mut out);
    }
}

/// The products of one row and all tokens.
fn by_all(x: &[f32], row: &[f32], r: usize, out: &mut ColumnsMut<'_>) {
    for (t, x) in x.chunks_exact(row.len()).enumerate() {
        out.row(t)[r] = elementwise::dot::<false>(x, row);
    }
}
