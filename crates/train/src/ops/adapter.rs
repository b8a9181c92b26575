//! The adapter of an exit: `out = z + up · silu(down · z)`, of which both matrices learn.

use super::{CHUNK, linear};
use offramp_kernels::gemm::Factors;
use offramp_kernels::rayon::prelude::*;

/// The matrices of an adapter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights<'a> {
    pub(crate) down: &'a [f32], // [rank, hidden]
    pub(crate) up: &'a [f32],   // [hidden, rank]
}

/// Their gradients; they are added to.
#[derive(Debug)]
pub(crate) struct Gradients<'a> {
    pub(crate) down: &'a mut [f32],
    pub(crate) up: &'a mut [f32],
}

/// What the forward keeps for the backward, of at most so many rows.
#[derive(Debug)]
pub(crate) struct Buffers {
    hidden: usize,
    inner: Vec<f32>,          // [rows, rank], before silu
    active: Vec<f32>,         // [rows, rank], after it
    d_inner: Vec<f32>,        // [rows, rank]
    d_z: Vec<f32>,            // [rows, hidden]
    pub(crate) out: Vec<f32>, // [rows, hidden]
}

impl Buffers {
    pub(crate) fn new(rows: usize, hidden: usize, rank: usize) -> Self {
        let [inner, active, d_inner] = [(); 3].map(|()| vec![0.0; rows * rank]);
        let [d_z, out] = [(); 2].map(|()| vec![0.0; rows * hidden]);
        Self { hidden, inner, active, d_inner, d_z, out }
    }

    /// Leaves the adapter's output of every row of `z` `[rows, hidden]` in `out`.
    pub(crate) fn forward(&mut self, z: &[f32], weights: Weights<'_>, factors: Factors) {
        let hidden = self.hidden;
        let (rows, rank) = (z.len() / hidden, weights.down.len() / hidden);
        let (inner, active) = (&mut self.inner[..rows * rank], &mut self.active[..rows * rank]);
        linear::forward(z, weights.down, hidden, factors, inner);
        let pairs = active.par_chunks_mut(CHUNK).zip(inner.par_chunks(CHUNK));
        pairs.for_each(|(active, x)| active.iter_mut().zip(x).for_each(|(out, x)| *out = x * sigmoid(*x)));
        let out = &mut self.out[..z.len()];
        linear::forward(active, weights.up, rank, factors, out);
        super::values::add(out, z);
    }

    /// Adds the gradients of the weights, and turns `d`, the gradient of the output, into that of `z`.
    pub(crate) fn backward(
        &mut self,
        z: &[f32],
        weights: Weights<'_>,
        gradients: &mut Gradients<'_>,
        factors: Factors,
        d: &mut [f32],
    ) {
        let hidden = self.hidden;
        let rank = weights.down.len() / hidden;
        let rows = z.len() / hidden;
        let (inner, active) = (&self.inner[..rows * rank], &self.active[..rows * rank]);
        let d_inner = &mut self.d_inner[..rows * rank];
        linear::backward_weight(&*d, active, rank, 1.0, factors, gradients.up);
        linear::backward_input(&*d, weights.up, rank, 1.0, factors, d_inner);
        d_inner.par_chunks_mut(CHUNK).zip(inner.par_chunks(CHUNK)).for_each(|(d, x)| {
            d.iter_mut().zip(x).for_each(|(d, &x)| {
                let sigmoid = sigmoid(x);
                *d *= sigmoid * (1.0 + x * (1.0 - sigmoid));
            });
        });
        linear::backward_weight(&*d_inner, z, hidden, 1.0, factors, gradients.down);
        let d_z = &mut self.d_z[..z.len()];
        linear::backward_input(&*d_inner, weights.down, hidden, 1.0, factors, d_z);
        super::values::add(d, d_z);
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers};
    use super::*;

    #[test]
    fn gradients_are_those_of_differences() {
        const HIDDEN: usize = 5;
        const RANK: usize = 3;
        const ROWS: usize = 4;
        let (z, down, up) = (numbers(ROWS * HIDDEN, 1), numbers(RANK * HIDDEN, 2), numbers(RANK * HIDDEN, 3));
        let of_out = numbers(ROWS * HIDDEN, 4);
        let loss = |z: &[f32], down: &[f32], up: &[f32]| {
            let mut buffers = Buffers::new(ROWS, HIDDEN, RANK);
            buffers.forward(z, Weights { down, up }, Factors::F32);
            buffers.out.iter().zip(&of_out).map(|(out, weight)| f64::from(out * weight)).sum::<f64>()
        };
        let mut buffers = Buffers::new(ROWS + 2, HIDDEN, RANK);
        let weights = Weights { down: &down, up: &up };
        buffers.forward(&z, weights, Factors::F32);
        let [mut d_down, mut d_up] = [vec![0.0; down.len()], vec![0.0; up.len()]];
        let mut d = of_out.clone();
        let mut gradients = Gradients { down: &mut d_down, up: &mut d_up };
        buffers.backward(&z, weights, &mut gradients, Factors::F32, &mut d);
        assert_gradient("z", &z, &d, |z| loss(z, &down, &up));
        assert_gradient("down", &down, &d_down, |down| loss(&z, down, &up));
        assert_gradient("up", &up, &d_up, |up| loss(&z, &down, up));
    }
}
