//! What attention asks of a vector of 16 lanes.

use crate::exponential::{self, Split};
use half::f16;

/// Lanes of a vector: one AVX-512 register, two AVX2, four SSE.
pub(crate) const LANES: usize = 16;

/// 16 floats.
///
/// A vector is made like one that is there: whoever has one has a processor for them, so that everything here
/// is safe, and the first one is made by the function of an instruction set.
pub(crate) trait Vector: Copy {
    fn splat(self, x: f32) -> Self;
    fn load(self, from: &[f32; LANES]) -> Self;
    fn widen(self, from: &[f16; LANES]) -> Self;
    fn store(self, to: &mut [f32; LANES]);
    fn add(self, other: Self) -> Self;
    fn sub(self, other: Self) -> Self;
    fn mul(self, other: Self) -> Self;
    /// `self · factor + term`
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// `2^k`, for lanes of `1.5 · 2^23 + k`.
    fn power(self) -> Self;
    /// Zero where `x` is below `least`.
    fn unless_below(self, x: Self, least: f32) -> Self;
    /// Whether any lane is above that of `other`.
    fn any_above(self, other: Self) -> bool;
    /// The largest lane.
    fn largest(self) -> f32;
    /// The sum of all lanes, in a fixed tree.
    fn sum(self) -> f32;
    /// Asks memory for what will be read soon; there need not be such an address.
    fn ask_for(address: usize);
}

impl<V: Vector> exponential::Lanes for V {
    #[inline(always)]
    fn splat(self, x: f32) -> Self {
        Vector::splat(self, x)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Vector::add(self, other)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Vector::sub(self, other)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Vector::mul(self, other)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Vector::mul_add(self, factor, term)
    }
}

/// `e^x` for x ≤ 0; 0 below −86.6, and NaN stays NaN.
#[inline(always)]
pub(super) fn exp<V: Vector>(x: V) -> V {
    let Split { value, shifted } = exponential::split(x);
    value.mul(shifted.power()).unless_below(x, -86.6)
}
