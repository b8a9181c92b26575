//! The Hadamard rotation before a ternary matrix: every row times the orthonormal Hadamard matrix.

use super::BLOCK;
use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// Rotates every row, in place.
///
/// # Shapes
/// `x`: `[rows, width]`, `width` a power of two
pub(crate) fn forward(x: &mut [f32], width: usize) {
    x.par_chunks_mut(BLOCK * width)
        .for_each(|block| block.chunks_exact_mut(width).for_each(active().hadamard));
}

/// Replaces the gradient of the output by that of the input: the matrix is its own transpose.
///
/// # Shapes
/// As [`forward`].
pub(crate) fn backward(d: &mut [f32], width: usize) {
    forward(d, width);
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers, weigh};
    use super::*;

    #[test]
    fn the_gradient_is_that_of_differences() {
        let (rows, width) = (67, 4); // more than a block
        let (x, d_out) = (numbers(rows * width, 1), numbers(rows * width, 2));
        let mut d_x = d_out.clone();
        backward(&mut d_x, width);
        assert_gradient("x", &x, &d_x, |x| {
            let mut out = x.to_vec();
            forward(&mut out, width);
            weigh(&out, &d_out)
        });
    }
}
