//! `e^x`, written once for single floats and for vectors of them.

use crate::rounding::ROUND;

/// What the exponential needs of a float, or of a vector of floats.
pub(crate) trait Lanes: Copy {
    /// `x` in every lane.
    fn splat(self, x: f32) -> Self;
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self · factor + term`
    fn mul_add(self, factor: Self, term: Self) -> Self;
}

/// `e^x = value · 2^k`, where `k` is the nearest whole number of `x · log₂ e`.
pub(crate) struct Split<L> {
    /// About 0.7 to 1.4.
    pub(crate) value: L,
    /// `k + `[`ROUND`], whose lowest bits are `k`.
    pub(crate) shifted: L,
}

/// Splits `e^x` for `x` of −87 to 89, to about 1 ulp: Cephes' polynomial, after reduction by powers of two.
#[inline(always)]
pub(crate) fn split<L: Lanes>(x: L) -> Split<L> {
    let shifted = x.mul_add(x.splat(std::f32::consts::LOG2_E), x.splat(ROUND));
    let power = shifted.sub(x.splat(ROUND));
    // ln 2 in two parts, so that the remainder is exact.
    let rest = power.mul_add(x.splat(-0.693_359_4), x);
    let rest = power.mul_add(x.splat(2.121_944_4e-4), rest);
    let mut poly = x.splat(1.987_569_1e-4);
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        poly = poly.mul_add(rest, x.splat(coefficient));
    }
    Split { value: poly.mul(rest).mul_add(rest, rest).add(x.splat(1.0)), shifted }
}
