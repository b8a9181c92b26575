//! A vector of attention in plain Rust, for any target.

use super::lanes::{LANES, Vector};
use half::f16;

/// A vector in plain Rust, without fused multiply-add.
impl Vector for [f32; LANES] {
    #[inline(always)]
    fn splat(self, x: f32) -> Self {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, from: &[f32; LANES]) -> Self {
        *from
    }

    #[inline(always)]
    fn widen(self, from: &[f16; LANES]) -> Self {
        lanes(|i| widened(from[i]))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self;
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        lanes(|i| self[i] + other[i])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        lanes(|i| self[i] - other[i])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        lanes(|i| self[i] * other[i])
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        lanes(|i| self[i] * factor[i] + term[i])
    }

    #[inline(always)]
    fn power(self) -> Self {
        lanes(|i| f32::from_bits(self[i].to_bits().wrapping_add(127) << 23))
    }

    #[inline(always)]
    fn unless_below(self, x: Self, least: f32) -> Self {
        lanes(|i| if x[i] < least { 0.0 } else { self[i] })
    }

    #[inline(always)]
    fn any_above(self, other: Self) -> bool {
        (0..LANES).fold(false, |any, i| any | (self[i] > other[i]))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        tree(self, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        tree(self, |a, b| a + b)
    }

    #[inline(always)]
    fn ask_for(_: usize) {}
}

#[inline(always)]
fn lanes(lane: impl Fn(usize) -> f32) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for (i, out) in out.iter_mut().enumerate() {
        *out = lane(i);
    }
    out
}

/// Lanes i and i + 8, then i and i + 4, and so on.
#[inline(always)]
fn tree(mut lanes: [f32; LANES], pair: impl Fn(f32, f32) -> f32) -> f32 {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            lanes[i] = pair(lanes[i], lanes[i + width]);
        }
    }
    lanes[0]
}

/// Exact, and without a branch: a multiplication by 2^112 puts the exponent right, of subnormals too.
#[inline(always)]
pub(super) fn widened(x: f16) -> f32 {
    let bits = u32::from(x.to_bits());
    let magnitude = f32::from_bits((bits & 0x7fff) << 13) * f32::from_bits(0x7780_0000);
    // Infinity and what is no number have the exponent of 2^16 and above by now.
    let special = if magnitude >= 65536.0 { 0x7f80_0000 } else { 0 };
    f32::from_bits(magnitude.to_bits() | special | (bits & 0x8000) << 16)
}
