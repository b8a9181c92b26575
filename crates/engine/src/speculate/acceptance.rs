//! How likely an exit says what the full model says: overall, and by how sure the exit was.

/// Margins in nats that part sure choices from unsure ones.
const EDGES: [f32; 7] = [0.25, 0.5, 1.0, 2.0, 3.0, 4.5, 6.5];
/// How the odds of agreement differ between them before any was seen.
const ODDS: [f64; EDGES.len() + 1] = [0.15, 0.25, 0.4, 0.9, 2.0, 5.0, 12.0, 40.0];
/// What a guess counts beside what was seen.
const GUESS: f64 = 2.0;
/// How much of what was seen is forgotten with each token: the text changes.
const KEPT: f64 = 0.99;

/// One exit's record.
#[derive(Clone, Debug)]
pub(crate) struct Acceptance {
    guess: f64,
    all: Seen,
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
    fn share(&self, guess: f64) -> f64 {
        (self.equal + GUESS * guess) / (self.compared + GUESS)
    }
}

impl Acceptance {
    /// Nothing seen; `guess` stands in.
    pub(crate) fn new(guess: f64) -> Self {
        Self { guess, all: Seen::default(), by_margin: Default::default() }
    }

    /// A choice of `margin` was or was not the full model's.
    pub(crate) fn saw(&mut self, margin: f32, equal: bool) {
        self.all.add(equal);
        self.by_margin[bin(margin)].add(equal);
    }

    /// The chance that a token is accepted.
    pub(crate) fn chance(&self) -> f64 {
        self.all.share(self.guess)
    }

    /// The same as it may well be, by two standard deviations.
    pub(crate) fn at_best(&self) -> f64 {
        let chance = self.chance();
        (chance + 2.0 * (chance * (1.0 - chance) / (self.all.compared + GUESS)).sqrt()).min(1.0)
    }

    /// The chance of a token that was chosen by `margin`.
    pub(crate) fn chance_at(&self, margin: f32) -> f64 {
        let (chance, bin) = (self.chance(), bin(margin));
        let odds = ODDS[bin] * chance / (1.0 - chance).max(1e-3);
        self.by_margin[bin].share(odds / (1.0 + odds))
    }

    /// Whether it has ever been right.
    pub(crate) fn was_right(&self) -> bool {
        self.all.equal > 0.0
    }
}

fn bin(margin: f32) -> usize {
    EDGES.iter().position(|&edge| margin < edge).unwrap_or(EDGES.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_converges_to_what_is_seen() {
        let mut acceptance = Acceptance::new(0.5);
        assert!(!acceptance.was_right());
        assert_eq!(acceptance.chance(), 0.5);
        for i in 0..1000 {
            acceptance.saw(if i % 4 == 0 { 0.1 } else { 8.0 }, i % 4 != 0);
        }
        assert!((acceptance.chance() - 0.75).abs() < 0.02, "{acceptance:?}");
        assert!(acceptance.at_best() < 0.87);
        assert!(acceptance.chance_at(0.2) < 0.05 && acceptance.chance_at(9.0) > 0.95);
    }

    #[test]
    fn sure_choices_are_trusted_more_from_the_start() {
        let acceptance = Acceptance::new(0.7);
        let chances: Vec<_> =
            [0.1, 0.3, 0.7, 1.5, 2.5, 4.0, 6.0, 9.0].map(|m| acceptance.chance_at(m)).into();
        assert!(chances.is_sorted() && chances[0] < 0.3 && chances[7] > 0.97, "{chances:?}");
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
    }
}
