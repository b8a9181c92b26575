//! The learning rate over time: linear warm-up to the peak, then half a cosine down to a fraction of it.

use crate::recipe::Recipe;
use std::f64::consts::PI;

/// The learning rate of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// The learning rate after the warm-up.
    pub peak: f64,
    /// Steps of the warm-up; the last of them has the peak.
    pub warmup_steps: u64,
    /// Steps of the run.
    pub steps: u64,
    /// What the cosine falls towards, as a fraction of the peak: a step after the last would have it.
    pub final_fraction: f64,
}

impl Schedule {
    /// The schedule of a recipe.
    pub fn new(recipe: &Recipe) -> Self {
        Self {
            peak: recipe.optimizer.learning_rate,
            warmup_steps: recipe.schedule.warmup_steps,
            steps: recipe.training.steps,
            final_fraction: recipe.schedule.final_fraction,
        }
    }

    /// The learning rate of `step`, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            return self.peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let falling = self.steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = (step - self.warmup_steps) as f64 / falling;
        let cosine = 0.5 * (1.0 + (PI * done.min(1.0)).cos());
        self.peak * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_falls_by_hand() {
        let schedule = Schedule { peak: 1.0, warmup_steps: 4, steps: 12, final_fraction: 0.1 };
        let near = |step, expected: f64| {
            let found = schedule.learning_rate(step);
            assert!((found - expected).abs() < 1e-12, "step {step}: {found} instead of {expected}");
        };
        [(0, 0.25), (1, 0.5), (3, 1.0), (4, 1.0), (8, 0.55)].into_iter().for_each(|(s, e)| near(s, e));
        near(6, 0.1 + 0.9 * 0.5 * (1.0 + 0.5f64.sqrt()));
        near(12, 0.1);
        near(99, 0.1);
    }

    #[test]
    fn no_warm_up_begins_at_the_peak() {
        let schedule = Schedule { peak: 0.5, warmup_steps: 0, steps: 10, final_fraction: 0.0 };
        assert_eq!(schedule.learning_rate(0), 0.5);
        let warm_up_only = Schedule { peak: 0.5, warmup_steps: 10, steps: 10, final_fraction: 0.0 };
        assert_eq!(warm_up_only.learning_rate(9), 0.5);
    }
}
