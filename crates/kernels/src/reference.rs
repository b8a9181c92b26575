//! The reference table: plain Rust for any target, and the definition of the others.

use crate::gemm::{Micro, portable};
use crate::lanes;
use crate::table::Table;

/// Written with arrays of lanes, so that the compiler vectorises it for whatever target it has; no
/// fused multiply-add, which would be a library call where the target lacks it.
pub(crate) static TABLE: Table = Table {
    name: "reference",
    product,
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

fn product(x: &[f32], weight: &[f32], in_features: usize, out: &mut [f32]) {
    let (tokens, rows) = lanes::product_shape(x, weight, in_features, out);
    for t in 0..tokens {
        let x = &x[t * in_features..][..in_features];
        for r in 0..rows {
            out[t * rows + r] = lanes::dot::<false>(x, &weight[r * in_features..][..in_features]);
        }
    }
}
