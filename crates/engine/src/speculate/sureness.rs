//! How likely a choice is right, by how sure the exit was.
//!
//! A logistic regression over two features, the margin and the entropy, each relative to its mean: what is
//! much in one model and at one temperature is little in another. Its weights are learnt while it runs, by an
//! extended Kalman filter: each comparison with the full model moves them by as much as they are unsure.
//! Beside margins alone, in bins, it has a lower log loss on text that was not seen (`docs/speculation.md`).

/// How sure a choice was.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Sureness {
    /// By how much it came before the second ([`Sampler::next_with_margin`](crate::Sampler)).
    pub(crate) margin: f32,
    /// The entropy of all choices in nats; 0 where nobody asked.
    pub(crate) entropy: f32,
}

/// Features of a choice: 1, and what margin and entropy are more than usual.
type Features = [f64; 3];

/// Weights before anything was seen, and how sure they are: what so many tokens would say.
const WEIGHTS: Features = [0.0, 0.6, -0.4];
const PRIOR: Features = [12.0, 2.0, 2.0];
/// How much of what was seen is kept with each token: the text changes.
const KEPT: f64 = 0.995;
/// Features beyond this are as this: a margin may be infinite.
const FARTHEST: f64 = 4.0;

/// One exit's record.
#[derive(Clone, Debug)]
pub(crate) struct Calibration {
    margin: f64,  // mean
    entropy: f64, // mean
    all: f64,
    weights: Features,
    precision: [Features; 3],
}

impl Default for Calibration {
    fn default() -> Self {
        let mut precision = [[0.0; 3]; 3];
        (0..3).for_each(|i| precision[i][i] = PRIOR[i]);
        Self { margin: 0.0, entropy: 0.0, all: 0.0, weights: WEIGHTS, precision }
    }
}

impl Calibration {
    /// A choice, whose chance was `chance` on the average, was or was not the full model's.
    pub(crate) fn saw(&mut self, sure: Sureness, chance: f64, equal: bool) {
        self.all = KEPT * self.all + 1.0;
        self.margin += (f64::from(sure.margin.min(f32::MAX)) - self.margin) / self.all;
        self.entropy += (f64::from(sure.entropy) - self.entropy) / self.all;
        let features = self.features(sure);
        let expected = self.chance(sure, chance);
        let told = (expected * (1.0 - expected)).max(1e-4);
        for (i, row) in self.precision.iter_mut().enumerate() {
            for (j, value) in row.iter_mut().enumerate() {
                let prior = if i == j { PRIOR[i] } else { 0.0 };
                *value = KEPT * *value + (1.0 - KEPT) * prior + told * features[i] * features[j];
            }
        }
        let error = f64::from(u8::from(equal)) - expected;
        let step = solve(&self.precision, features.map(|feature| feature * error));
        self.weights.iter_mut().zip(step).for_each(|(weight, step)| *weight += step);
    }

    /// The chance of a choice, where that of any is `chance`.
    pub(crate) fn chance(&self, sure: Sureness, chance: f64) -> f64 {
        let chance = chance.clamp(1e-3, 1.0 - 1e-3);
        let odds = (chance / (1.0 - chance)).ln();
        let more: f64 = self.weights.iter().zip(self.features(sure)).map(|(weight, of)| weight * of).sum();
        1.0 / (1.0 + (-odds - more).exp())
    }

    fn features(&self, sure: Sureness) -> Features {
        let relative = |value: f32, mean: f64| match mean > 0.0 {
            true => (f64::from(value) / mean - 1.0).clamp(-1.0, FARTHEST),
            false => 0.0,
        };
        [1.0, relative(sure.margin, self.margin), relative(sure.entropy, self.entropy)]
    }
}

/// The solution of `matrix · x = right` of a positive definite matrix, by Cramer's rule.
fn solve(matrix: &[Features; 3], right: Features) -> Features {
    let of = |columns: [Features; 3]| {
        let [a, b, c] = columns;
        a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0])
    };
    let whole = of(*matrix);
    let with = |index: usize| {
        let mut columns = *matrix; // it is symmetric: rows are columns
        columns[index] = right;
        of(columns)
    };
    [with(0), with(1), with(2)].map(|part| part / whole)
}

#[cfg(test)]
impl Sureness {
    /// Of a margin alone.
    pub(crate) fn of(margin: f32) -> Self {
        Self { margin, entropy: 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_converges_to_what_is_seen() {
        let mut sure = Calibration::default();
        (0..2000).for_each(|i| sure.saw(Sureness::of(if i % 4 == 0 { 0.1 } else { 8.0 }), 0.75, i % 4 != 0));
        let of = |margin| sure.chance(Sureness::of(margin), 0.75);
        assert!(of(0.2) < 0.1 && of(9.0) > 0.95, "{} {}", of(0.2), of(9.0));
    }

    /// Where all choices have one margin, entropy alone tells them apart.
    #[test]
    fn entropy_tells_what_margins_do_not() {
        let mut sure = Calibration::default();
        let of = |entropy| Sureness { margin: 2.0, entropy };
        (0..2000).for_each(|i| sure.saw(of(if i % 4 == 0 { 3.0 } else { 0.5 }), 0.75, i % 4 != 0));
        assert!(sure.chance(of(3.0), 0.75) < 0.1 && sure.chance(of(0.5), 0.75) > 0.95);
    }

    /// Where neither tells anything, it is what it is on the average.
    #[test]
    fn what_tells_nothing_is_forgotten() {
        let mut sure = Calibration::default();
        let of = |i: usize| Sureness { margin: [1.0, 3.0, 7.0][i % 3], entropy: [0.3, 2.0][i % 2] };
        (0..4000).for_each(|i| sure.saw(of(i), 0.8, i % 5 != 0));
        for i in 0..6 {
            let found = sure.chance(of(i), 0.8);
            assert!((found - 0.8).abs() < 0.1, "{found}");
        }
    }

    /// In a model whose logits lie close together as in one where they do not.
    #[test]
    fn sure_choices_are_trusted_more_from_the_start() {
        for scale in [0.01, 1.0, 30.0] {
            let mut sure = Calibration::default();
            sure.saw(Sureness::of(scale), 0.7, true);
            let of = |margin: f32| sure.chance(Sureness::of(margin * scale), 0.7);
            let chances = [0.05, 0.2, 0.4, 0.7, 1.5, 2.5, 9.0].map(of);
            assert!(chances.is_sorted() && chances[0] < 0.6 && chances[6] > 0.85, "{chances:?}");
            assert!((0.0..=1.0).contains(&of(f32::INFINITY)));
        }
    }

    /// By hand: a matrix whose inverse is known.
    #[test]
    fn equations_are_solved() {
        let found = solve(&[[4.0, 1.0, 0.0], [1.0, 3.0, 1.0], [0.0, 1.0, 2.0]], [6.0, 10.0, 8.0]);
        let expected = [1.0, 2.0, 3.0];
        assert!(
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-12),
            "{found:?}"
        );
    }
}
