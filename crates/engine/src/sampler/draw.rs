//! Gumbel-max over what is kept.

use super::Sampler;
use rand::RngExt;

/// Numbers that the generator makes at once: to leave out as many is sooner than to draw them.
const AT_ONCE: u32 = 64;
/// As long as the second is below this (the largest logit is 0), every candidate is compared: chances that
/// matter there are too small for a float.
const LOWEST: f64 = -40.0;
/// What a chance may err by, and more.
const SLACK: f64 = 1.001;

impl Sampler {
    /// The candidate whose logit and noise, that of `position`, sum to the most; and by how much.
    ///
    /// Two logarithms make noise of a number, and few candidates are worth them: with u uniform, the noise
    /// −ln(−ln u) is at most −ln(1 − u). So a candidate comes in second at best unless 1 − u is less
    /// than e^logit / e^second.
    pub(super) fn draw(&mut self, position: usize) -> (u32, f32) {
        self.generator.set_stream(position as u64);
        self.generator.set_word_pos(0);
        // In the order of their ids, of which each has a number of its own: the noise of an id does not
        // depend on which others are kept.
        self.candidates.sort_unstable();
        // The largest logit is 0, so that e^logit is the chance over the largest chance.
        let most = self.chances.iter().fold(0f32, |most, &chance| if chance > most { chance } else { most });
        let (mut best, mut second, mut bound) =
            ((self.candidates[0], f64::NEG_INFINITY), f64::NEG_INFINITY, None);
        let mut next = 0;
        for &id in &self.candidates {
            if id - next >= AT_ONCE {
                self.generator.set_word_pos(u128::from(id));
            } else {
                (next..id).for_each(|_| {
                    self.generator.random::<u32>();
                });
            }
            next = id + 1;
            let uniform = (f64::from(self.generator.random::<u32>()) + 0.5) / (f64::from(u32::MAX) + 1.0);
            let chance = f64::from(self.chances[id as usize]);
            if bound.is_some_and(|bound| 1.0 - uniform > bound * chance) {
                continue;
            }
            let value = f64::from(self.logits[id as usize]) - (-uniform.ln()).ln();
            if value > best.1 {
                (best, second) = ((id, value), best.1);
            } else {
                second = second.max(value);
            }
            bound = (second > LOWEST).then(|| SLACK * (-second).exp() / f64::from(most));
        }
        (best.0, (best.1 - second) as f32)
    }
}
