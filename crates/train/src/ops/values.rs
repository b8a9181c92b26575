//! Whole buffers of weights or gradients, whatever their values mean.

use super::CHUNK;
use offramp_kernels::active;
use offramp_kernels::rayon::prelude::*;

/// Sets every value to zero.
pub(crate) fn zero(values: &mut [f32]) {
    values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
}

/// Whether every value is a finite number.
pub(crate) fn are_finite(values: &[f32]) -> bool {
    values.par_chunks(CHUNK).all(|chunk| chunk.iter().all(|value| value.is_finite()))
}

/// Partial sums that [`sum_of_squares`] makes of so many values.
pub(crate) fn partial_sums(values: usize) -> usize {
    values.div_ceil(CHUNK)
}

/// `Σ values²`, summed in `f64` and in a fixed order.
///
/// # Shapes
/// `partial`: [`partial_sums`]
pub(crate) fn sum_of_squares(values: &[f32], partial: &mut [f64]) -> f64 {
    assert_eq!(partial.len(), partial_sums(values.len()), "a sum for each chunk");
    let chunks = values.par_chunks(CHUNK).zip(partial.par_iter_mut());
    chunks.for_each(|(chunk, sum)| *sum = (active().sum_of_squares)(chunk));
    partial.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::numbers;
    use super::*;

    #[test]
    fn sums_are_those_of_all_values() {
        let values = numbers(2 * CHUNK + 5, 1);
        let expected: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let found = sum_of_squares(&values, &mut [f64::NAN; 3]);
        assert!((found / expected - 1.0).abs() < 1e-12, "{found} instead of {expected}");
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
