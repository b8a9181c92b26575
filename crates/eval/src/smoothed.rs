//! The one smoothing of this project: of the loss and the speed, in the live display and in the curves.

/// What a value counts, once enough came before it.
const SHARE: f64 = 1.0 / 20.0;

/// A running mean that forgets: a twentieth of it is the newest value.
///
/// With values x₁, x₂, …: s₁ = x₁, and sₙ = sₙ₋₁ + max(1/20, 1/n) · (xₙ − sₙ₋₁). The first twenty make a plain mean,
/// so that nothing leans on the first value for long. Values that are not finite are not counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Smoothed {
    now: f64,
    count: u64,
}

impl Smoothed {
    /// Takes the next value in.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.count += 1;
        let share = SHARE.max(1.0 / self.count as f64);
        self.now = if self.count == 1 { value } else { self.now + share * (value - self.now) };
    }

    /// The smoothed value; NaN before there was one.
    pub fn value(&self) -> f64 {
        if self.count == 0 { f64::NAN } else { self.now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn smoothed(values: impl IntoIterator<Item = f64>) -> f64 {
        let mut smoothed = Smoothed::default();
        values.into_iter().for_each(|value| smoothed.add(value));
        smoothed.value()
    }

    #[test]
    fn it_begins_as_a_mean_and_then_forgets() {
        assert!(smoothed([]).is_nan());
        assert!((smoothed([4.0, 2.0, 9.0]) - 5.0).abs() < 1e-12, "the mean of the first");
        let settled = smoothed([1.0; 100].into_iter().chain([3.0]));
        assert!((settled - 1.1).abs() < 1e-12, "a twentieth later: {settled}");
    }

    #[test]
    fn what_is_not_finite_changes_nothing() {
        assert_eq!(smoothed([f64::NAN, 4.0, f64::INFINITY, 2.0]), 3.0);
    }
}
