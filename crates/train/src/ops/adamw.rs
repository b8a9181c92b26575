//! One update of AdamW (Loshchilov and Hutter 2019).

use super::CHUNK;
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::{AdamWStep, active};

/// Moves `weights`, and updates the first moments `m` and the second moments `v`.
///
/// # Shapes
/// All slices are alike.
pub(crate) fn step(step: &AdamWStep, weights: &mut [f32], gradients: &[f32], m: &mut [f32], v: &mut [f32]) {
    let moments = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
    let values = weights.par_chunks_mut(CHUNK).zip(gradients.par_chunks(CHUNK));
    values.zip(moments).for_each(|((weights, gradients), (m, v))| {
        (active().adamw)(step, weights, gradients, m, v);
    });
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::numbers;
    use super::*;

    /// More values than a chunk, from moments that are not zero.
    #[test]
    fn it_is_the_formula() {
        let len = CHUNK + 7;
        let constants = AdamWStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            bias1: 0.19,
            bias2: 0.0975,
            grad_scale: 0.5,
        };
        let (before, gradients, m) = (numbers(len, 1), numbers(len, 2), numbers(len, 3));
        let v: Vec<f32> = numbers(len, 4).into_iter().map(f32::abs).collect();
        let (mut weights, mut new_m, mut new_v) = (before.clone(), m.clone(), v.clone());
        step(&constants, &mut weights, &gradients, &mut new_m, &mut new_v);
        for i in 0..len {
            let [w, g, m, v] = [before[i], gradients[i], m[i], v[i]].map(f64::from);
            let g = 0.5 * g;
            let (m, v) = (0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g);
            let expected = w - 0.01 * 0.1 * w - 0.01 * (m / 0.19) / ((v / 0.0975).sqrt() + 1e-8);
            assert!((f64::from(weights[i]) - expected).abs() < 1e-5, "{i}: {} not {expected}", weights[i]);
        }
    }
}
