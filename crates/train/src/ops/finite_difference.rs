//! The ops' tests share this: made-up numbers, and the check of a gradient against finite differences.

/// Pseudo-random numbers in −1..1, another series for each `seed`.
pub(crate) fn numbers(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// `Σ a · b`: the scalar loss of an op whose output is `a`, with `b` as `d_out`.
pub(crate) fn weigh(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len(), "one weight for each output");
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// Asserts that `gradient` is the gradient of `loss` at `x`: a five-point difference in every element, which
/// is exact up to the fifth derivative.
#[track_caller]
pub(crate) fn assert_gradient(what: &str, x: &[f32], gradient: &[f32], loss: impl Fn(&[f32]) -> f64) {
    assert_gradient_at(what, x, gradient, 0..x.len(), 0.0, loss);
}

/// As [`assert_gradient`], in some elements. The roundings of `loss` may move a difference by `noise`.
#[track_caller]
pub(crate) fn assert_gradient_at(
    what: &str,
    x: &[f32],
    gradient: &[f32],
    elements: impl IntoIterator<Item = usize>,
    noise: f64,
    loss: impl Fn(&[f32]) -> f64,
) {
    const STEP: f32 = 1.0 / 128.0;
    assert_eq!(x.len(), gradient.len(), "{what}: one gradient for each value");
    let largest = gradient.iter().fold(0f64, |most, &g| most.max(f64::from(g.abs())));
    assert!(largest > 0.0, "{what}: a gradient of zeros proves nothing");
    let mut moved = x.to_vec();
    for i in elements {
        let found = gradient[i];
        let mut slope = |steps: f32| {
            moved[i] = x[i] + steps * STEP;
            let (above, high) = (loss(&moved), moved[i]);
            moved[i] = x[i] - steps * STEP;
            let (below, low) = (loss(&moved), moved[i]);
            moved[i] = x[i];
            (above - below) / f64::from(high - low)
        };
        let expected = (4.0 * slope(1.0) - slope(2.0)) / 3.0;
        let difference = (f64::from(found) - expected).abs();
        assert!(difference <= 1e-3 * largest + noise, "{what}[{i}]: {found}, by differences {expected}");
    }
}
