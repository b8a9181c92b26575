//! The reference table: plain Rust for any target, and the definition of the others.

use crate::columns::ColumnsMut;
use crate::gemm::{Micro, portable};
use crate::lanes;
use crate::linear::Rows;
use crate::strips;
use crate::table::Table;
use half::bf16;

/// Written with arrays of lanes, so that the compiler vectorises it for whatever target it has; no
/// fused multiply-add, which would be a library call where the target lacks it.
pub(crate) static TABLE: Table = Table {
    name: "reference",
    product,
    operand_bf16: |x, _, out| lanes::narrow::<false>(x, out),
    operand_len: |tokens, in_features| tokens * in_features,
    product_bf16,
    product_strips: strips::lanes::product_strips::<false>,
    quantise: strips::quantise::<false>,
    dot: lanes::dot::<false>,
    axpy: lanes::axpy::<false>,
    sum_of_squares: lanes::sum_of_squares::<false>,
    rms_norm: lanes::rms_norm::<false>,
    rms_norm_backward: lanes::rms_norm_backward::<false>,
    softmax: lanes::softmax::<false>,
    narrow: lanes::narrow::<false>,
    weighted_sum: lanes::weighted_sum::<false>,
    silu_mul: lanes::silu_mul::<false>,
    silu_mul_backward: lanes::silu_mul_backward::<false>,
    rope: lanes::rope::<false>,
    adamw: lanes::adamw::<false>,
    gemm: &GEMM,
    gemm_bf16: &GEMM_BF16,
};

static GEMM: Micro =
    Micro { rows: 4, columns: 16, per_word: 1, pack: portable::pack, tile: portable::tile::<false, 4, 16> };

static GEMM_BF16: Micro = Micro {
    rows: 4,
    columns: 16,
    per_word: 2,
    pack: portable::pack_bf16,
    tile: portable::tile_bf16::<false, 4, 16>,
};

fn product(factors: Rows<'_, f32>, out: ColumnsMut<'_>) {
    each(factors, out, lanes::dot::<false>);
}

fn product_bf16(factors: Rows<'_, bf16>, out: ColumnsMut<'_>) {
    each(factors, out, lanes::dot_bf16::<false>);
}

/// Every element by itself.
fn each<V>(factors: Rows<'_, V>, mut out: ColumnsMut<'_>, dot: impl Fn(&[V], &[V]) -> f32) {
    factors.check(out.rows(), out.columns());
    let Rows { x, weight, in_features } = factors;
    for (t, x) in x.chunks_exact(in_features).enumerate() {
        for (out, weight) in out.row(t).iter_mut().zip(weight.chunks_exact(in_features)) {
            *out = dot(x, weight);
        }
    }
}
