//! Element-wise work on many rows, over the engine's threads.
//!
//! A row's arithmetic is that of the table's function on this row alone, so that neither the other rows nor
//! the threads change it. A call with few values stays on the calling thread.

use crate::dispatch::active;
use crate::{pool, team};

/// Values below which a thread is not worth calling.
const WORTH_A_THREAD: usize = 32 << 10;
/// Values that a thread takes at a time.
const PIECE: usize = 16 << 10;

/// Threads for `values` values, and the rows of `width` that one takes at a time.
fn cut(values: usize, width: usize) -> (usize, usize) {
    let threads = if values < WORTH_A_THREAD { 1 } else { pool::threads() };
    // One thread takes everything in one piece.
    let rows = if threads == 1 { values / width.max(1) } else { PIECE / width.max(1) };
    (threads, rows.max(1) * width.max(1))
}

/// Root-mean-square norm of every row of `x` into `out`; see [`Table::rms_norm`](crate::Table::rms_norm).
///
/// # Shapes
/// `x`, `out`: `[rows, width]`, `weight`: `[width]`
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    let (threads, piece) = cut(x.len(), width);
    team::share(threads, x.chunks(piece).zip(out.chunks_mut(piece)), |(x, out)| {
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            (active().rms_norm)(x, weight, eps, out);
        }
    });
}

/// Rotates the heads of every row by the row's angles; see [`Table::rope`](crate::Table::rope).
///
/// # Shapes
/// `heads`: `[rows, any number of heads, head_dim]`, `cos`, `sin`: `[rows, head_dim / 2]`
pub fn rotate(heads: &mut [f32], head_dim: usize, cos: &[f32], sin: &[f32]) {
    let half = head_dim / 2;
    let width = heads.len() / (cos.len() / half).max(1);
    let (threads, piece) = cut(heads.len(), width);
    let angles = piece / width.max(1) * half;
    let pieces = heads.chunks_mut(piece).zip(cos.chunks(angles).zip(sin.chunks(angles)));
    team::share(threads, pieces, |(heads, (cos, sin))| {
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (row, (cos, sin)) in heads.chunks_exact_mut(width).zip(angles) {
            row.chunks_exact_mut(head_dim).for_each(|head| (active().rope)(head, cos, sin));
        }
    });
}

/// `out = silu(gate) · up`; see [`Table::silu_mul`](crate::Table::silu_mul).
///
/// # Shapes
/// all: `[rows, width]`
pub fn silu_mul(gate: &[f32], up: &[f32], width: usize, out: &mut [f32]) {
    let (threads, piece) = cut(gate.len(), width);
    let pieces = gate.chunks(piece).zip(up.chunks(piece)).zip(out.chunks_mut(piece));
    team::share(threads, pieces, |((gate, up), out)| (active().silu_mul)(gate, up, out));
}

/// `y += x`.
///
/// # Shapes
/// both: `[rows, width]`
pub fn add(x: &[f32], width: usize, y: &mut [f32]) {
    let (threads, piece) = cut(x.len(), width);
    team::share(threads, x.chunks(piece).zip(y.chunks_mut(piece)), |(x, y)| (active().axpy)(1.0, x, y));
}

/// Adds `bias` to every row of `y`.
///
/// # Shapes
/// `bias`: `[width]`, `y`: `[rows, width]`
pub fn add_bias(bias: &[f32], y: &mut [f32]) {
    let (threads, piece) = cut(y.len(), bias.len());
    team::share(threads, y.chunks_mut(piece), |y| {
        y.chunks_exact_mut(bias.len()).for_each(|y| (active().axpy)(1.0, bias, y));
    });
}

/// `x · factor` in place.
pub fn scale(x: &mut [f32], factor: f32) {
    let (threads, piece) = cut(x.len(), 1);
    team::share(threads, x.chunks_mut(piece), |x| x.iter_mut().for_each(|x| *x *= factor));
}
