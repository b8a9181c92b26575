//! SwiGLU, the gate of the feed-forward network: `silu(gate) · up` (Shazeer 2020).

use super::BLOCK;
use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// `out = silu(gate) · up`.
///
/// # Shapes
/// `gate_up`: `[rows, 2 · inner]`, a row's gates before its ups; `out`: `[rows, inner]`
pub(crate) fn forward(gate_up: &[f32], inner: usize, out: &mut [f32]) {
    assert_eq!(gate_up.len(), 2 * out.len(), "a gate and an up for each output");
    let blocks = gate_up.par_chunks(BLOCK * 2 * inner).zip(out.par_chunks_mut(BLOCK * inner));
    blocks.for_each(|(gate_up, out)| {
        for (gate_up, out) in gate_up.chunks_exact(2 * inner).zip(out.chunks_exact_mut(inner)) {
            let (gate, up) = gate_up.split_at(inner);
            (active().silu_mul)(gate, up, out);
        }
    });
}

/// Replaces `gate_up` by its gradient.
///
/// # Shapes
/// As [`forward`]; `d_out` like `out`.
pub(crate) fn backward(gate_up: &mut [f32], inner: usize, d_out: &[f32]) {
    assert_eq!(gate_up.len(), 2 * d_out.len(), "a gate and an up for each output");
    let blocks = gate_up.par_chunks_mut(BLOCK * 2 * inner).zip(d_out.par_chunks(BLOCK * inner));
    blocks.for_each(|(gate_up, d_out)| {
        for (gate_up, d_out) in gate_up.chunks_exact_mut(2 * inner).zip(d_out.chunks_exact(inner)) {
            let (gate, up) = gate_up.split_at_mut(inner);
            (active().silu_mul_backward)(gate, up, d_out);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    #[test]
    fn the_gradient_is_that_of_differences() {
        let (rows, inner) = (67, 3);
        let (gate_up, d_out) = (numbers(rows * 2 * inner, 1), numbers(rows * inner, 2));
        let mut d_gate_up = gate_up.clone();
        backward(&mut d_gate_up, inner, &d_out);
        assert_gradient("gate_up", &gate_up, &d_gate_up, |gate_up| {
            let mut out = vec![f32::NAN; rows * inner];
            forward(gate_up, inner, &mut out);
            weigh(&out, &d_out)
        });
    }
}
