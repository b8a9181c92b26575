//! The gate of the feed-forward network: `silu(gate) · up`.

use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// Floats that one task takes.
const CHUNK: usize = 1 << 13;

/// `out = silu(gate) · up`, element by element.
pub fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) {
    let inputs = gate.par_chunks(CHUNK).zip(up.par_chunks(CHUNK));
    let chunks = out.par_chunks_mut(CHUNK).zip(inputs);
    chunks.for_each(|(out, (gate, up))| (active().silu_mul)(gate, up, out));
}

/// Replaces `gate` and `up` by their gradients.
pub fn backward(gate: &mut [f32], up: &mut [f32], d_out: &[f32]) {
    let inputs = gate.par_chunks_mut(CHUNK).zip(up.par_chunks_mut(CHUNK));
    let chunks = inputs.zip(d_out.par_chunks(CHUNK));
    chunks.for_each(|((gate, up), d_out)| (active().silu_mul_backward)(gate, up, d_out));
}
