//! Rounding to whole numbers without a call into a library.

/// 1.5 · 2²³. A float below 2²² in magnitude that this is added to keeps no fraction: the sum is rounded to
/// the nearest whole number, ties to even, and holds it in the lowest bits of its mantissa.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// The nearest whole number, ties to even, of what is below 2²² in magnitude.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> f32 {
    (x + ROUND) - ROUND
}

/// As [`nearest`], as an integer.
#[inline(always)]
pub(crate) fn nearest_i32(x: f32) -> i32 {
    (x + ROUND).to_bits().wrapping_sub(ROUND.to_bits()) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_even_on_both_sides_of_zero() {
        for x in [-4_194_303.0f32, -2.5, -1.5, -0.5, -0.4, 0.0, 0.5, 0.6, 1.5, 2.5, 1234.5, 4_194_303.0] {
            let expected = x.round_ties_even();
            assert_eq!(nearest(x), expected);
            assert_eq!(nearest_i32(x), expected as i32);
        }
    }
}
