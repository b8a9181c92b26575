//! One set of functions for one instruction set.

use crate::attend::Attend;
use crate::bit_linear::Activations;
use crate::columns::ColumnsMut;
use crate::elementwise::{AdamWStep, NormRow};
use crate::factors::{RowFactors, StripFactors, TernaryFactors};
use crate::gemm::micro::Micro;
use crate::strips::block_quantized::TokenMut;
use crate::strips::layout::StripFormat;
use half::bf16;

/// Tokens of a group: some tables multiply so many together.
pub(crate) const TILE_TOKENS: usize = 16;

/// The arithmetic of one instruction set. See the crate's head for what every table promises.
///
/// The functions panic if the lengths of their slices do not agree: shapes are the caller's responsibility.
#[derive(Debug)]
pub struct Table {
    /// Its name in `OFFRAMP_KERNELS`.
    pub name: &'static str,
    /// `out[t, r] = Σ_k x[t, k] · weight[r, k]`, on one thread, each element in one fixed order. Here and
    /// below, `out` is `[tokens, rows]` or some of its columns.
    pub product: fn(RowFactors<'_, f32>, ColumnsMut<'_>),
    /// Rounds tokens to `bf16`, in the order in which this table's `product_bf16` reads them. Arguments: `x`
    /// `[tokens, in_features]`, `in_features`, the number of tokens of the whole product, and room for
    /// [`Self::operand_len`] values. `x` may be some groups of `TILE_TOKENS` of the whole product.
    pub operand_bf16: fn(&[f32], usize, usize, &mut [bf16]),
    /// Values that `operand_bf16` writes for so many tokens and features. Both may be padded.
    pub operand_len: fn(usize, usize) -> usize,
    /// As `product`, of factors in `bf16`. `operand_bf16` made `x`; sums are `f32`.
    pub product_bf16: fn(RowFactors<'_, bf16>, ColumnsMut<'_>),
    /// As `product`, of quantized factors; a block is summed in `i32`.
    pub product_strips: fn(StripFactors<'_>, ColumnsMut<'_>),
    /// As `product`, of quantized tokens and ternary weights; an element is one sum in `i32`.
    pub product_ternary: fn(TernaryFactors<'_>, ColumnsMut<'_>),
    /// Quantizes one row as [`bit_linear::quantize`](crate::bit_linear::quantize) does. Returns its step and
    /// the sum of its codes.
    pub quantize_row: QuantizeRow,
    /// Rotates one row in place; see [`bit_linear::hadamard`](crate::bit_linear::hadamard).
    pub hadamard: fn(&mut [f32]),
    /// Packs rows into one strip: codes, `[rows, in_features]`, `in_features`, the strip. See
    /// [`pack`](crate::strips::pack).
    pub(crate) pack: fn(StripFormat, &[f32], usize, &mut [u8]),
    /// Quantizes one token, `[in_features]`; see [`BlockQuantizer`](crate::strips::BlockQuantizer).
    pub(crate) quantize_token: fn(&[f32], StripFormat, TokenMut<'_>),
    /// `Σ_k a[k] · b[k]`.
    pub dot: fn(&[f32], &[f32]) -> f32,
    /// `y += a · x`.
    pub axpy: fn(f32, &[f32], &mut [f32]),
    /// `Σ x²`, accumulated in `f64`.
    pub sum_of_squares: fn(&[f32]) -> f64,
    /// `out = x / √(mean(x²) + eps) · weight` for one row; returns `1 / √(mean(x²) + eps)`
    /// (Zhang and Sennrich 2019). Arguments: `x`, `weight`, `eps`, `out`.
    pub rms_norm: fn(&[f32], &[f32], f32, &mut [f32]) -> f32,
    /// Adds one row's gradients to `d_x` and `d_weight` (second and third argument).
    pub rms_norm_backward: fn(NormRow<'_>, &mut [f32], &mut [f32]),
    /// Softmax in place; returns the log-sum-exp of the scores.
    pub softmax: fn(&mut [f32]) -> f32,
    /// Replaces `d` (second argument), the gradient of probabilities `p`, by that of their scores:
    /// `p · (d − Σ p · d)`.
    pub softmax_backward: fn(&[f32], &mut [f32]),
    /// Rounds to the nearest `bf16`, ties to even.
    pub narrow: fn(&[f32], &mut [bf16]),
    /// Attention of a few heads over their cache, in one pass; `out` is `[tokens, heads · head_dim]` or some
    /// of its columns.
    pub attend: fn(&Attend<'_>, ColumnsMut<'_>),
    /// `out = silu(gate) · up`, `silu(z) = z / (1 + e^−z)`. Arguments: `gate`, `up`, `out`.
    pub silu_mul: fn(&[f32], &[f32], &mut [f32]),
    /// Replaces `gate` and `up` by their gradients, given `d_out` (third argument).
    pub silu_mul_backward: fn(&mut [f32], &mut [f32], &[f32]),
    /// Rotates one head in place: pairs `(i, i + head_dim / 2)`, as Hugging Face's Llama does.
    /// Arguments: `head` `[head_dim]`, `cos` and `sin` `[head_dim / 2]`. Negate `sin` to rotate back.
    pub rope: fn(&mut [f32], &[f32], &[f32]),
    /// The innermost part of [`gemm`](crate::gemm).
    pub gemm: &'static Micro,
    /// As `gemm`, for factors rounded to `bf16`.
    pub gemm_bf16: &'static Micro,
    /// One AdamW update. Arguments: the step, parameters, gradients, first and second moments.
    pub adamw: AdamW,
}

/// A row, and where its codes go.
type QuantizeRow = fn(Activations, &[f32], &mut [i8]) -> (f32, i32);

/// Step, parameters, gradients, first and second moments.
type AdamW = fn(&AdamWStep, &mut [f32], &[f32], &mut [f32], &mut [f32]);
