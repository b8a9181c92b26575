//! The arithmetic of a `BitLinear` layer: ternary weights, activations of 8 or 4 bits, and the rotation
//! before them.
//!
//! This is the definition, in plain Rust. Training calls it, and the engine's faster kernels are tested
//! against it. With codes `c` and steps `s` (scales), a product is `y = (Σ c_x · c_w) · (s_x · s_w)`: the sum
//! is an exact whole number, which is scaled once. A value that is not finite makes its step not finite, so
//! that no product hides it.
//!
//! Sources: BitNet b1.58 (Ma et al. 2024, arXiv:2402.17764) for weights and 8 bits, in the form of its
//! training tips and of Hugging Face's `bitnet`; BitNet a4.8 (Wang et al. 2024, arXiv:2411.04965) for 4 bits;
//! BitNet v2 (Wang et al. 2025, arXiv:2504.18415) for the rotation.

pub(crate) mod row_kernels;

use crate::rounding::nearest_i32;

/// The least magnitude that a step is computed from, so that a row of zeros has a step.
const FLOOR: f32 = 1e-5;

/// Lanes in which magnitudes are summed; see [`mean_magnitude`].
const LANES: usize = 8;

/// √7: a row's mean magnitude is √7 steps of its 4-bit codes.
const SQRT_7: f32 = 2.645_751_3;

/// How many bits the codes of activations have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activations {
    /// −128 to 127; the largest magnitude of a token is 127.
    Int8,
    /// −8 to 7; the mean magnitude of a token is √7, and larger codes are clamped.
    Int4,
}

impl Activations {
    /// Bits of a code.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Int8 => 8,
            Self::Int4 => 4,
        }
    }

    /// For one token `x`: the factor of its values before they are rounded, and the step of its codes.
    #[inline(always)]
    fn scales(self, x: &[f32]) -> (f32, f32) {
        match self {
            Self::Int8 => {
                let inverse = 127.0 / at_least_floor(max_magnitude(x));
                (inverse, 1.0 / inverse)
            }
            Self::Int4 => {
                let mean = at_least_floor(mean_magnitude(x));
                (SQRT_7 / mean, mean / SQRT_7)
            }
        }
    }

    const fn range(self) -> (f32, f32) {
        match self {
            Self::Int8 => (-128.0, 127.0),
            Self::Int4 => (-8.0, 7.0),
        }
    }
}

/// The step of a matrix of ternary weights: `max(mean|w|, 1e-5)`.
pub fn absmean(weights: &[f32]) -> f32 {
    at_least_floor(mean_magnitude(weights))
}

/// Ternary codes of weights whose [`absmean`] is `step`: `clamp(round(w / step), −1, 1)`, ties to even.
///
/// # Panics
/// If `codes` is not as long as `weights`.
pub fn ternary<C: From<i8>>(weights: &[f32], step: f32, codes: &mut [C]) {
    round(weights, 1.0 / step, (-1.0, 1.0), codes);
}

/// The codes of one token's activations; returns their step. `c = clamp(round(x · 127 / max|x|), −128, 127)`
/// of step `max|x| / 127`, or `c = clamp(round(√7 · x / β), −8, 7)` of step `β / √7`, where `β = mean|x|`;
/// ties to even, and neither maximum nor mean below 1e-5.
///
/// # Panics
/// If `codes` is not as long as `x`.
#[inline(always)] // compiled for each instruction set
pub fn quantize<C: From<i8>>(activations: Activations, x: &[f32], codes: &mut [C]) -> f32 {
    let (inverse, step) = activations.scales(x);
    round(x, inverse, activations.range(), codes);
    step
}

/// Multiplies a row by the orthonormal Hadamard matrix of its length (Sylvester's order), in place: its own
/// inverse and transpose. Butterflies over neighbours come first, those over halves last, then one product
/// with `1 / √n`.
///
/// # Panics
/// If the length is no power of two.
#[inline(always)]
pub fn hadamard(row: &mut [f32]) {
    assert!(row.len().is_power_of_two(), "a Hadamard rotation of {} values", row.len());
    let mut half = 1;
    while half < row.len() {
        for pair in row.chunks_exact_mut(2 * half) {
            let (left, right) = pair.split_at_mut(half);
            for (a, b) in left.iter_mut().zip(right) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = (1.0 / (row.len() as f64).sqrt()) as f32;
    row.iter_mut().for_each(|value| *value *= scale);
}

/// Clamps before it rounds, so that values are small enough for [`nearest_i32`]. The bounds are whole
/// numbers, so that the order does not matter.
#[inline(always)]
fn round<C: From<i8>>(values: &[f32], inverse: f32, (least, most): (f32, f32), codes: &mut [C]) {
    assert_eq!(values.len(), codes.len(), "one code for each value");
    for (code, value) in codes.iter_mut().zip(values) {
        let bounded = (value * inverse).max(least).min(most);
        *code = C::from(nearest_i32(bounded) as i8);
    }
}

/// The larger of both; NaN stays NaN.
#[inline(always)]
fn at_least_floor(magnitude: f32) -> f32 {
    if magnitude < FLOOR { FLOOR } else { magnitude }
}

/// Compares bits, which have the order of the magnitudes. Infinity and NaN are above all others.
#[inline(always)]
fn max_magnitude(values: &[f32]) -> f32 {
    f32::from_bits(values.iter().fold(0, |most, value| most.max(value.abs().to_bits())))
}

/// `mean|x|`, summed in `f64`: lane `j` of eight takes the values `k ≡ j` in increasing `k`, then lanes are
/// added in their order.
#[inline(always)]
fn mean_magnitude(values: &[f32]) -> f32 {
    let mut lanes = [0.0f64; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        lanes.iter_mut().zip(values).for_each(|(lane, value)| *lane += f64::from(value.abs()));
    }
    lanes.iter_mut().zip(rest).for_each(|(lane, value)| *lane += f64::from(value.abs()));
    (lanes.iter().sum::<f64>() / values.len() as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn row() -> impl Strategy<Value = Vec<f32>> {
        (vec(-1.0f32..1.0, 1..300), -20i32..20).prop_map(|(row, exponent)| {
            let scale = 2f32.powi(exponent);
            row.into_iter().map(|value| value * scale).collect()
        })
    }

    /// The formula.
    fn expected(x: f32, inverse: f32, (least, most): (f32, f32)) -> f32 {
        (x * inverse).round_ties_even().clamp(least, most)
    }

    proptest! {
        #[test]
        fn codes_are_those_of_the_formula(x in row()) {
            for (activations, bounds) in [(Activations::Int8, (-128.0, 127.0)), (Activations::Int4, (-8.0, 7.0))] {
                let mut codes = vec![0i8; x.len()];
                let step = quantize(activations, &x, &mut codes);
                let mean = x.iter().map(|&x| f64::from(x.abs())).sum::<f64>() / x.len() as f64;
                let (inverse, exact) = match activations {
                    Activations::Int8 => {
                        let inverse = 127.0 / x.iter().fold(1e-5f32, |most, x| most.max(x.abs()));
                        (inverse, 1.0 / inverse)
                    }
                    Activations::Int4 => {
                        let mean = (mean as f32).max(1e-5);
                        (7f32.sqrt() / mean, mean / 7f32.sqrt())
                    }
                };
                prop_assert!((step / exact - 1.0).abs() < 1e-6, "{} instead of {}", step, exact);
                for (&code, &x) in codes.iter().zip(&x) {
                    let (found, wanted) = (f32::from(code), expected(x, inverse, bounds));
                    // The mean here is summed in another order. Its last bit may move a value that lies
                    // half-way.
                    let half_way = ((x * inverse).fract().abs() - 0.5).abs() < 1e-4;
                    prop_assert!(found == wanted || half_way && (found - wanted).abs() == 1.0);
                }
                let mut floats = vec![0f32; x.len()];
                prop_assert_eq!(quantize(activations, &x, &mut floats), step);
                prop_assert!(floats.iter().zip(&codes).all(|(&float, &code)| float == f32::from(code)));
            }
        }

        #[test]
        fn weights_are_ternary(weights in row()) {
            let step = absmean(&weights);
            let mean = weights.iter().map(|&w| f64::from(w.abs())).sum::<f64>() / weights.len() as f64;
            prop_assert!((step / (mean as f32).max(1e-5) - 1.0).abs() < 1e-6);
            let mut codes = vec![0i8; weights.len()];
            ternary(&weights, step, &mut codes);
            for (&code, &weight) in codes.iter().zip(&weights) {
                prop_assert_eq!(f32::from(code), expected(weight, 1.0 / step, (-1.0, 1.0)));
            }
        }

        #[test]
        fn a_rotation_keeps_lengths_and_undoes_itself(exponent in 0u32..11, seed in vec(-1.0f32..1.0, 1024)) {
            let row = &seed[..1 << exponent];
            let mut rotated = row.to_vec();
            hadamard(&mut rotated);
            let squares = |row: &[f32]| row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            prop_assert!((squares(&rotated) - squares(row)).abs() <= 1e-5 * squares(row));
            hadamard(&mut rotated);
            prop_assert!(rotated.iter().zip(row).all(|(found, x)| (found - x).abs() < 1e-5));
        }
    }

    #[test]
    fn the_rotation_is_hadamards_matrix() {
        // H[i][j] = (−1)^popcount(i & j) / √n.
        for n in [1usize, 2, 8, 32] {
            for j in 0..n {
                let mut row = vec![0.0; n];
                row[j] = 1.0;
                hadamard(&mut row);
                for (i, &found) in row.iter().enumerate() {
                    let sign = if (i & j).count_ones() % 2 == 0 { 1.0 } else { -1.0 };
                    assert!((found - sign / (n as f32).sqrt()).abs() < 1e-7, "{n}: [{i}][{j}] is {found}");
                }
            }
        }
    }

    #[test]
    fn rows_of_zeros_and_of_one_value_have_codes() {
        for activations in [Activations::Int8, Activations::Int4] {
            let mut codes = [9i8; 5];
            let step = quantize(activations, &[0.0; 5], &mut codes);
            assert!(step > 0.0 && step.is_finite() && codes == [0; 5]);
        }
        let mut codes = [0i8; 3];
        assert_eq!(quantize(Activations::Int8, &[-2.0, 1.0, 2.0], &mut codes), 1.0 / (127.0 / 2.0));
        assert_eq!(codes, [-127, 64, 127]); // 63.5 is rounded to even
        quantize(Activations::Int4, &[1.0, -1.0, 0.0], &mut codes);
        assert_eq!(codes, [4, -4, 0]); // √7 / (2/3) = 3.97
        let step = absmean(&[0.0; 4]);
        assert_eq!(step, 1e-5);
    }

    #[test]
    fn what_is_not_finite_makes_the_step_not_finite() {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, 8, 10] {
                let mut x = [0.5f32; 11];
                x[place] = bad;
                let mut codes = [0i8; 11];
                for activations in [Activations::Int8, Activations::Int4] {
                    assert!(!quantize(activations, &x, &mut codes).is_finite(), "{activations:?} {bad}");
                }
                assert!(!absmean(&x).is_finite(), "{bad}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "a Hadamard rotation of 12 values")]
    fn only_powers_of_two_are_rotated() {
        hadamard(&mut [1.0; 12]);
    }
}
