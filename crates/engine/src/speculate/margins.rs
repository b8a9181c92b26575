//! How likely a choice is right, by how sure the exit was.

/// Margins that part sure choices from unsure ones, in the exit's mean margins: what is much in one model and
/// at one temperature is little in another.
const EDGES: [f64; 7] = [0.1, 0.25, 0.5, 0.8, 1.2, 2.0, 3.5];
/// How the odds differ between them before any was seen.
const ODDS: [f64; EDGES.len() + 1] = [0.5, 0.6, 0.75, 0.9, 1.1, 1.4, 2.0, 3.0];
/// What that guess counts beside what was seen.
const GUESS: f64 = 12.0;
/// How much of what was seen is kept with each token: the text changes.
const KEPT: f64 = 0.995;

/// One exit's record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Margins {
    mean: f64,
    all: f64,
    seen: [Seen; EDGES.len() + 1],
}

/// Choices that were compared with the full model's.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    equal: f64,
    compared: f64,
}

impl Margins {
    /// A choice of `margin` was or was not the full model's.
    pub(crate) fn saw(&mut self, margin: f32, equal: bool) {
        let margin = f64::from(margin.min(f32::MAX));
        self.all = KEPT * self.all + 1.0;
        self.mean += (margin - self.mean) / self.all;
        let seen = &mut self.seen[self.bin(margin)];
        seen.equal = KEPT * seen.equal + f64::from(u8::from(equal));
        seen.compared = KEPT * seen.compared + 1.0;
    }

    /// The chance of a token that was chosen by `margin`, where that of any is `chance`.
    pub(crate) fn chance(&self, margin: f32, chance: f64) -> f64 {
        let bin = self.bin(f64::from(margin.min(f32::MAX)));
        let odds = ODDS[bin] * chance / (1.0 - chance).max(1e-3);
        let Seen { equal, compared } = self.seen[bin];
        (equal + GUESS * odds / (1.0 + odds)) / (compared + GUESS)
    }

    fn bin(&self, margin: f64) -> usize {
        let relative = if self.mean > 0.0 { margin / self.mean } else { 1.0 };
        EDGES.iter().position(|&edge| relative < edge).unwrap_or(EDGES.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_converges_to_what_is_seen() {
        let mut margins = Margins::default();
        (0..1000).for_each(|i| margins.saw(if i % 4 == 0 { 0.1 } else { 8.0 }, i % 4 != 0));
        assert!(margins.chance(0.2, 0.75) < 0.05 && margins.chance(9.0, 0.75) > 0.95);
    }

    /// In a model whose logits lie close together as in one where they do not.
    #[test]
    fn sure_choices_are_trusted_more_from_the_start() {
        for scale in [0.01, 1.0, 30.0] {
            let mut margins = Margins::default();
            margins.saw(scale, true);
            let chances: Vec<_> =
                [0.05, 0.2, 0.4, 0.7, 1.5, 2.5, 9.0].map(|m| margins.chance(m * scale, 0.7)).into();
            assert!(chances.is_sorted() && chances[0] < 0.6 && chances[6] > 0.85, "{chances:?}");
            assert!((0.0..=1.0).contains(&margins.chance(f32::INFINITY, 0.7)));
        }
    }
}
