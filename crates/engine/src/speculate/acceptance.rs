//! How likely an exit says what the full model says: overall, and by how sure the exit was.

/// Margins that part sure choices from unsure ones, in the exit's mean margins: what is much in one model and at one
/// temperature is little in another.
const EDGES: [f64; 7] = [0.1, 0.25, 0.5, 0.8, 1.2, 2.0, 3.5];
/// How the odds of agreement differ between them before any was seen.
const ODDS: [f64; EDGES.len() + 1] = [0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 4.0, 8.0];
/// What a guess counts beside what was seen, of all choices and of those of about a margin.
const GUESS: f64 = 4.0;
const GUESS_AT_MARGIN: f64 = 1.0;
/// How much of what was seen is kept with each token: the text changes.
const KEPT: f64 = 0.995;

/// One exit's record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Acceptance {
    all: Seen,
    margin: f64, // the mean
    by_margin: [Seen; EDGES.len() + 1],
}

/// Choices that were compared with the full model's.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    equal: f64,
    compared: f64,
}

impl Seen {
    fn add(&mut self, equal: bool) {
        self.equal = KEPT * self.equal + f64::from(u8::from(equal));
        self.compared = KEPT * self.compared + 1.0;
    }

    /// The share of equal choices, a guess among them.
    fn share(&self, guess: f64, counts: f64) -> f64 {
        (self.equal + counts * guess) / (self.compared + counts)
    }
}

impl Acceptance {
    /// A choice of `margin` was or was not the full model's.
    pub(crate) fn saw(&mut self, margin: f32, equal: bool) {
        let margin = f64::from(margin.min(f32::MAX));
        self.margin += (margin - self.margin) / (KEPT * self.all.compared + 1.0);
        self.all.add(equal);
        self.by_margin[self.bin(margin)].add(equal);
    }

    /// The chance that a token is accepted; `guess` is what one would say without having seen any.
    pub(crate) fn chance(&self, guess: f64) -> f64 {
        self.all.share(guess, GUESS)
    }

    /// The same as it may well be, by two standard deviations.
    pub(crate) fn at_best(&self, guess: f64) -> f64 {
        let chance = self.chance(guess);
        (chance + 2.0 * (chance * (1.0 - chance) / (self.all.compared + GUESS)).sqrt()).min(1.0)
    }

    /// The chance of a token that was chosen by `margin`, where that of any is `chance`.
    pub(crate) fn chance_at(&self, margin: f32, chance: f64) -> f64 {
        let bin = self.bin(f64::from(margin.min(f32::MAX)));
        let odds = ODDS[bin] * chance / (1.0 - chance).max(1e-3);
        self.by_margin[bin].share(odds / (1.0 + odds), GUESS_AT_MARGIN)
    }

    /// How many choices count.
    pub(crate) fn compared(&self) -> f64 {
        self.all.compared
    }

    /// The share of choices that were right, of those that count.
    pub(crate) fn share(&self) -> f64 {
        self.all.equal / self.all.compared.max(1.0)
    }

    fn bin(&self, margin: f64) -> usize {
        let relative = if self.margin > 0.0 { margin / self.margin } else { 1.0 };
        EDGES.iter().position(|&edge| relative < edge).unwrap_or(EDGES.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_converges_to_what_is_seen() {
        let mut acceptance = Acceptance::default();
        assert_eq!((acceptance.chance(0.5), acceptance.share()), (0.5, 0.0));
        for i in 0..1000 {
            acceptance.saw(if i % 4 == 0 { 0.1 } else { 8.0 }, i % 4 != 0);
        }
        assert!((acceptance.chance(0.5) - 0.75).abs() < 0.02, "{acceptance:?}");
        assert!(acceptance.at_best(0.5) < 0.87);
        assert!(acceptance.chance_at(0.2, 0.75) < 0.05 && acceptance.chance_at(9.0, 0.75) > 0.95);
    }

    /// In a model whose logits lie close together as in one where they do not.
    #[test]
    fn sure_choices_are_trusted_more_from_the_start() {
        for scale in [0.01, 1.0, 30.0] {
            let mut acceptance = Acceptance::default();
            acceptance.saw(scale, true);
            let chances: Vec<_> =
                [0.05, 0.2, 0.4, 0.7, 1.5, 2.5, 9.0].map(|m| acceptance.chance_at(m * scale, 0.7)).into();
            assert!(chances.is_sorted() && chances[0] < 0.4 && chances[6] > 0.9, "{chances:?}");
            assert!((0.0..=1.0).contains(&acceptance.chance_at(f32::INFINITY, 0.7)));
        }
    }
}
