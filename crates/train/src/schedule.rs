//! What changes over a run. The learning rate warms up linearly to its peak and falls along half a cosine to
//! a fraction of it. A second stage changes the peak and the weight decay. In one low-bit model the bits of
//! activations change.

use crate::recipe::{LAST_INT4_FROM, LowBit, Recipe};
use offramp_kernels::bit_linear::Activations;
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
    /// The fraction of the peak to which the cosine falls, one step after the last.
    pub final_fraction: f64,
    /// Weight decay of the matrices.
    pub weight_decay: f64,
    /// The second stage, if there is one.
    pub second: Option<SecondStage>,
    /// The first step whose activations have 4 bits, where that changes.
    pub int4_from: Option<u64>,
}

/// The second stage: the same curve under another peak, and another decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SecondStage {
    /// Its first step, counted from 0.
    pub from: u64,
    /// The factor of the learning rate.
    pub fraction: f64,
    /// Weight decay of the matrices.
    pub weight_decay: f64,
}

impl Schedule {
    /// The schedule of a recipe.
    pub fn new(recipe: &Recipe) -> Self {
        let (optimizer, schedule, steps) = (&recipe.optimizer, &recipe.schedule, recipe.training.steps);
        let after = |share: f64| (share * steps as f64).floor() as u64;
        let second = schedule.second_stage.map(|share| SecondStage {
            from: after(share),
            fraction: schedule.second_fraction.unwrap_or(1.0),
            weight_decay: optimizer.second_weight_decay.unwrap_or(optimizer.weight_decay),
        });
        let four_bits = recipe.model.bit_linear == Some(LowBit::V2);
        Self {
            weight_decay: optimizer.weight_decay,
            second,
            int4_from: four_bits.then(|| after(schedule.int4_from.unwrap_or(LAST_INT4_FROM))),
            peak: recipe.optimizer.learning_rate,
            warmup_steps: recipe.schedule.warmup_steps,
            steps: recipe.training.steps,
            final_fraction: recipe.schedule.final_fraction,
        }
    }

    /// The learning rate of `step`, counted from 0.
    pub fn learning_rate(&self, step: u64) -> f64 {
        let peak = self.peak * self.second(step).map_or(1.0, |second| second.fraction);
        if step < self.warmup_steps {
            return peak * (step + 1) as f64 / self.warmup_steps as f64;
        }
        let falling = self.steps.saturating_sub(self.warmup_steps).max(1) as f64;
        let done = (step - self.warmup_steps) as f64 / falling;
        let cosine = 0.5 * (1.0 + (PI * done.min(1.0)).cos());
        peak * (self.final_fraction + (1.0 - self.final_fraction) * cosine)
    }

    /// The weight decay of the matrices in `step`, counted from 0.
    pub fn weight_decay(&self, step: u64) -> f64 {
        self.second(step).map_or(self.weight_decay, |second| second.weight_decay)
    }

    /// The bits of ternary matrices' inputs in `step`, counted from 0, if they change over the run.
    pub fn activations(&self, step: u64) -> Option<Activations> {
        self.int4_from.map(|from| if step < from { Activations::Int8 } else { Activations::Int4 })
    }

    /// Whether a stage that had begun by `step` under `before` begins later under this schedule.
    pub(crate) fn takes_back(&self, before: &Self, step: u64) -> bool {
        let stages = |schedule: &Self| [schedule.second.map(|second| second.from), schedule.int4_from];
        let pairs = stages(self).into_iter().zip(stages(before));
        pairs.into_iter().any(|(now, before)| {
            let begun = |from: Option<u64>| from.is_some_and(|from| from < step);
            begun(before) && !begun(now)
        })
    }

    fn second(&self, step: u64) -> Option<SecondStage> {
        self.second.filter(|second| step >= second.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn schedule(peak: f64, final_fraction: f64, warmup_steps: u64, steps: u64) -> Schedule {
        let (weight_decay, second, int4_from) = (0.1, None, None);
        Schedule { peak, warmup_steps, steps, final_fraction, weight_decay, second, int4_from }
    }

    #[test]
    fn the_second_stage_has_another_peak_and_another_decay() {
        let first = schedule(1.0, 0.1, 4, 12);
        let second = SecondStage { from: 6, fraction: 0.5, weight_decay: 0.0 };
        let both = Schedule { second: Some(second), ..first };
        for step in 0..12 {
            let (share, decay) = if step < 6 { (1.0, 0.1) } else { (0.5, 0.0) };
            assert_eq!(both.learning_rate(step), share * first.learning_rate(step));
            assert_eq!((both.weight_decay(step), first.weight_decay(step)), (decay, 0.1));
            assert_eq!(both.activations(step), None);
        }
    }

    #[test]
    fn activations_have_four_bits_in_at_least_the_last_tenth() {
        for steps in 1..200u64 {
            for (key, share) in [("", 0.9), ("int4_from = 0.9", 0.9), ("int4_from = 0.5", 0.5)] {
                let text = format!(
                    "[data]\ncorpus = \"c\"\n[model]\nbit_linear = \"bitskip-v2\"\n[training]\nsteps = {steps}\n\
                     [schedule]\nwarmup_steps = 0\n{key}"
                );
                let schedule = Schedule::new(&Recipe::from_toml(&text, Path::new("r.toml")).unwrap());
                let four = |&step: &u64| schedule.activations(step) == Some(Activations::Int4);
                let count = (0..steps).filter(four).count() as f64;
                let least = (1.0 - share) * steps as f64;
                assert!(count >= least - 1e-9 && count < least + 1.0 + 1e-9, "{count} of {steps}");
                assert!((0..steps).map(|step| four(&step)).is_sorted(), "once");
            }
        }
    }

    #[test]
    fn it_rises_and_falls_by_hand() {
        let schedule = schedule(1.0, 0.1, 4, 12);
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
        assert_eq!(schedule(0.5, 0.0, 0, 10).learning_rate(0), 0.5);
        let warm_up_only = schedule(0.5, 0.0, 10, 10);
        assert_eq!(warm_up_only.learning_rate(9), 0.5);
    }
}
