//! The only smoothing of this project: of loss and speed, in the live display and in the curves.

/// The weight of the newest value, after the first twenty.
const SHARE: f64 = 1.0 / 20.0;

/// An exponential moving average in which the newest value weighs one twentieth.
///
/// With values x₁, x₂, …: s₁ = x₁, and sₙ = sₙ₋₁ + max(1/20, 1/n) · (xₙ − sₙ₋₁). The first twenty make a
/// plain mean, so that the first value loses its weight soon. Values that are not finite do not count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Smoothed {
    now: f64,
    count: u64,
}

impl Smoothed {
    /// Adds the next value.
    pub(crate) fn add(&mut self, value: f64) {
        if !value.is_finite() {
            return;
        }
        self.count += 1;
        let share = SHARE.max(1.0 / self.count as f64);
        self.now = if self.count == 1 { value } else { self.now + share * (value - self.now) };
    }

    /// The smoothed value; NaN before the first value.
    pub(crate) fn value(&self) -> f64 {
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
