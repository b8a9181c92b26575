//! Whole buffers of weights or gradients, whatever their values mean.

use super::CHUNK;
use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;
use std::ops::Range;

/// Sets every value to zero.
pub(crate) fn zero(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
}

/// Whether every value is a finite number.
pub(crate) fn are_finite(values: &[f32]) -> bool {
    values.par_chunks(CHUNK).all(|chunk| chunk.iter().all(|value| value.is_finite()))
}

/// Values whose squares are summed at a time.
pub(crate) const PIECE: usize = CHUNK;

/// `Σ values²` of each numbered piece of `values`, in `f64` and in a fixed order.
pub(crate) fn sums_of_squares(values: &[f32], pieces: &[(usize, Range<usize>)]) -> Vec<f64> {
    pieces.par_iter().map(|(_, piece)| (active().sum_of_squares)(&values[piece.clone()])).collect()
}

/// Adds `values` to `sum`.
pub(crate) fn add(sum: &mut [f32], values: &[f32]) {
    let chunks = sum.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK));
    chunks.for_each(|(sum, values)| sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value));
}

/// `values + share · (target − values)`, in place. A share of 1 gives the target itself.
pub(crate) fn move_towards(values: &mut [f32], target: &[f32], share: f32) {
    let chunks = values.par_chunks_mut(CHUNK).zip(target.par_chunks(CHUNK));
    chunks.for_each(|(values, target)| match share == 1.0 {
        true => values.copy_from_slice(target),
        false => {
            values.iter_mut().zip(target).for_each(|(value, target)| *value += share * (target - *value))
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::numbers;
    use super::*;

    #[test]
    fn sums_are_those_of_all_values() {
        let values = numbers(2 * CHUNK + 5, 1);
        let expected: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let pieces = [(0, 0..7), (1, 7..CHUNK + 7), (2, CHUNK + 7..values.len())];
        let found: f64 = sums_of_squares(&values, &pieces).iter().sum();
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} instead of {expected}");
        let mut twice = values.clone();
        add(&mut twice, &values);
        assert!(twice.iter().zip(&values).all(|(twice, value)| *twice == 2.0 * value));
    }

    #[test]
    fn one_bad_value_is_noticed_and_none_survives_zeroing() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = numbers(2 * CHUNK + 5, 1);
            assert!(are_finite(&values));
            values[2 * CHUNK + 4] = bad;
            assert!(!are_finite(&values));
            zero(&mut values);
            assert!(values.iter().all(|&value| value == 0.0));
        }
    }
}
