//! One set of functions per instruction set, chosen once at run time.

use crate::attend::Attend;
use crate::bit_linear::Activations;
use crate::columns::ColumnsMut;
use crate::gemm::Micro;
use crate::linear::Rows;
use crate::strips::{Codes, Places, Strips};
use crate::ternary::Ternary;
use half::bf16;
use std::ffi::OsString;
use std::sync::OnceLock;

/// Tokens that some tables keep together.
pub const TILE_TOKENS: usize = 16;

/// The arithmetic of one instruction set. See the crate's head for what every table promises.
///
/// The functions check the lengths of their slices and panic where they disagree: the callers own
/// their shapes.
#[derive(Debug)]
pub struct Table {
    /// What `OFFRAMP_KERNELS` calls it.
    pub name: &'static str,
    /// `out[t, r] = Σ_k x[t, k] · weight[r, k]`, on one thread, each element in one fixed order. Here and
    /// below, `out` is `[tokens, rows]` or some of its columns.
    pub product: fn(Rows<'_, f32>, ColumnsMut<'_>),
    /// Rounds tokens to `bf16` in the order in which this table's `product_bf16` reads them. Arguments: `x`
    /// `[tokens, in_features]`, `in_features`, the number of tokens of the whole product, of which these may be
    /// some groups of [`TILE_TOKENS`], and room for their [`Self::operand_len`] values.
    pub operand_bf16: fn(&[f32], usize, usize, &mut [bf16]),
    /// Values of that order, for tokens and features: it may pad both.
    pub operand_len: fn(usize, usize) -> usize,
    /// As `product`, of factors in `bf16`, `x` as `operand_bf16` made it; sums are `f32`.
    pub product_bf16: fn(Rows<'_, bf16>, ColumnsMut<'_>),
    /// As `product`, of quantised factors; a block is summed in `i32`.
    pub product_strips: fn(Strips<'_>, ColumnsMut<'_>),
    /// As `product`, of quantised tokens and ternary weights; an element is one sum in `i32`.
    pub product_ternary: fn(Ternary<'_>, ColumnsMut<'_>),
    /// Quantises one row, as [`bit_linear::quantise`](crate::bit_linear::quantise) says: returns its step and the sum
    /// of its codes.
    pub quantise_row: QuantiseRow,
    /// Rotates one row in place; see [`bit_linear::hadamard`](crate::bit_linear::hadamard).
    pub hadamard: fn(&mut [f32]),
    /// Packs rows into one strip: codes, `[rows, in_features]`, `in_features`, the strip. See
    /// [`pack`](crate::strips::pack).
    pub(crate) pack: fn(Codes, &[f32], usize, &mut [u8]),
    /// Quantises one token; see [`Quantiser`](crate::strips::Quantiser).
    pub(crate) quantise: Quantise,
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
    /// Softmax in place; returns the log-sum-exp of what stood there.
    pub softmax: fn(&mut [f32]) -> f32,
    /// Replaces `d` (second argument), the gradient of probabilities `p`, by that of their scores:
    /// `p · (d − Σ p · d)`.
    pub softmax_backward: fn(&[f32], &mut [f32]),
    /// Rounds to the nearest `bf16`, ties to even.
    pub narrow: fn(&[f32], &mut [bf16]),
    /// Attention of a few heads over their cache, in one pass; `out` is `[tokens, heads · head_dim]` or some of
    /// its columns.
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

/// A token, the weights' codes, the tokens between two blocks, and where its own codes and scales go.
type Quantise = fn(&[f32], Codes, usize, Places<'_>);

/// A row, and where its codes go.
type QuantiseRow = fn(Activations, &[f32], &mut [i8]) -> (f32, i32);

/// Step, parameters, gradients, first and second moments.
type AdamW = fn(&AdamWStep, &mut [f32], &[f32], &mut [f32], &mut [f32]);

/// One row that went through `rms_norm`, and the gradient that came back.
#[derive(Clone, Copy, Debug)]
pub struct NormRow<'a> {
    /// What went in, `[hidden]`.
    pub x: &'a [f32],
    /// The norm's weight, `[hidden]`.
    pub weight: &'a [f32],
    /// What `rms_norm` returned.
    pub inv_rms: f32,
    /// Gradient of what came out, `[hidden]`.
    pub d_out: &'a [f32],
}

/// The constants of one AdamW update (Loshchilov and Hutter 2019, in PyTorch's form):
/// `p ← p − lr·weight_decay·p − lr · (m / bias1) / (√(v / bias2) + eps)`.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// `1 − beta1^t`, t counted from 1.
    pub bias1: f32,
    /// `1 − beta2^t`.
    pub bias2: f32,
    /// What every gradient is multiplied by first: the clipping factor.
    pub grad_scale: f32,
}

/// The tables that this processor can run, the reference first, the fastest last.
pub fn available() -> Vec<&'static Table> {
    let mut tables = vec![&crate::reference::TABLE];
    #[cfg(target_arch = "x86_64")]
    tables.extend(crate::x86::tables());
    tables
}

/// `OFFRAMP_KERNELS` names a table that this processor does not have.
#[derive(Debug, thiserror::Error)]
#[error("OFFRAMP_KERNELS is {wanted:?}: this processor has {available}; unset it for the fastest", available = names())]
pub struct UnknownTable {
    wanted: OsString,
}

fn names() -> String {
    available().iter().map(|table| table.name).collect::<Vec<_>>().join(", ")
}

/// The fastest table, or the one that `OFFRAMP_KERNELS` names.
///
/// # Errors
/// If this processor has none of that name. Whoever asks here first need not fear [`active`]'s panic.
pub fn choose() -> Result<&'static Table, UnknownTable> {
    named(std::env::var_os("OFFRAMP_KERNELS"))
}

fn named(wanted: Option<OsString>) -> Result<&'static Table, UnknownTable> {
    let tables = available();
    match wanted {
        None => Ok(tables[tables.len() - 1]),
        Some(wanted) => tables.into_iter().find(|table| wanted == table.name).ok_or(UnknownTable { wanted }),
    }
}

/// The table in use, chosen once as [`choose`] does.
///
/// # Panics
/// If `OFFRAMP_KERNELS` names a table that this processor does not have.
pub fn active() -> &'static Table {
    static ACTIVE: OnceLock<&'static Table> = OnceLock::new();
    ACTIVE.get_or_init(|| choose().unwrap_or_else(|error| panic!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_chosen_by_its_name_or_is_the_fastest() {
        let tables = available();
        assert_eq!(tables[0].name, "reference");
        assert_eq!(named(None).expect("always one").name, tables[tables.len() - 1].name);
        for table in tables {
            assert_eq!(named(Some(table.name.into())).expect("it is available").name, table.name);
        }
    }

    #[test]
    fn a_table_that_is_not_there_is_one_line_that_names_those_that_are() {
        let mut unknown: Vec<OsString> = ["", "AVX2", "neon", " avx2", "avx2\n"].map(OsString::from).into();
        #[cfg(unix)]
        unknown.push(std::os::unix::ffi::OsStringExt::from_vec(vec![0xff])); // no UTF-8, and so no name
        for wanted in unknown {
            let message = named(Some(wanted.clone())).expect_err("no such table").to_string();
            assert!(message.starts_with(&format!("OFFRAMP_KERNELS is {wanted:?}: ")), "{message}");
            assert!(message.contains(&names()) && !message.contains('\n'), "{message}");
        }
    }
}
