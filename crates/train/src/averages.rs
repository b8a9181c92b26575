//! Averages of the weights over the steps of a run: models of their own beside the one that learns. They
//! change no step. The formulas are those of PyTorch's `torch.optim.swa_utils`.
//!
//! - An exponential moving average (EMA): the first step's weights, then `d · average + (1 − d) · weights`
//!   after each step.
//! - Stochastic weight averaging (SWA; Izmailov et al. 2018, arXiv:1803.05407): the plain mean of the weights
//!   after `swa_start` steps and after every `swa_every` steps from there on.

use crate::ops::values;
use crate::recipe::{AverageKeys, Recipe};

/// One average.
#[derive(Debug)]
pub(crate) struct Average {
    kind: Kind,
    /// The mean so far, laid out as the model's weights; zero before there is one.
    pub(crate) values: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Ema { decay: f32 },
    Swa { start: u64, every: u64 },
}

/// The averages that a recipe asks for, over `len` values.
pub(crate) fn averages(recipe: &Recipe, len: usize) -> Vec<Average> {
    let keys = &recipe.averages;
    let ema = keys.ema_decay.map(|decay| Kind::Ema { decay: decay as f32 });
    let swa = keys.swa_start.map(|start| Kind::Swa { start, every: keys.swa_every() });
    ema.into_iter().chain(swa).map(|kind| Average { kind, values: vec![0.0; len] }).collect()
}

/// How many averages a recipe asks for.
pub(crate) fn count(keys: &AverageKeys) -> usize {
    usize::from(keys.ema_decay.is_some()) + usize::from(keys.swa_start.is_some())
}

impl Average {
    /// What it is called in files.
    pub(crate) fn name(&self) -> &'static str {
        match self.kind {
            Kind::Ema { .. } => "ema",
            Kind::Swa { .. } => "swa",
        }
    }

    /// Takes the weights after `step` steps. Every step is told once, in order.
    pub(crate) fn take(&mut self, step: u64, weights: &[f32]) {
        let len = self.values.len();
        if let Some(share) = self.share(step) {
            values::move_towards(&mut self.values, &weights[..len], share);
        }
    }

    /// Whether there is a mean after `step` steps.
    pub(crate) fn has_begun(&self, step: u64) -> bool {
        match self.kind {
            Kind::Ema { .. } => step > 0,
            Kind::Swa { start, .. } => step >= start,
        }
    }

    /// The share of the weights after `step` steps in the mean, if they are part of it.
    fn share(&self, step: u64) -> Option<f32> {
        match self.kind {
            Kind::Ema { decay } => Some(if step == 1 { 1.0 } else { 1.0 - decay }),
            Kind::Swa { start, every } => {
                let since = step.checked_sub(start).filter(|since| since.is_multiple_of(every))?;
                Some(1.0 / (since / every + 1) as f32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn after_each_step(keys: &str, steps: &[[f32; 3]]) -> Vec<Vec<f32>> {
        let text = format!("[data]\ncorpus = \"c\"\n[averages]\n{keys}");
        let recipe = Recipe::from_toml(&text, Path::new("r.toml")).unwrap();
        let mut all = averages(&recipe, 3);
        assert_eq!((all.len(), count(&recipe.averages)), (1, 1));
        let mut found = Vec::new();
        for (step, weights) in (1..).zip(steps) {
            all[0].take(step, weights);
            assert_eq!(all[0].has_begun(step), all[0].values != [0.0; 3], "{keys}, {step}");
            found.push(all[0].values.clone());
        }
        found
    }

    const WEIGHTS: [[f32; 3]; 6] = [
        [1.0, -2.0, 0.5],
        [1.5, -1.0, 0.25],
        [0.75, -3.0, 1.0],
        [2.0, -2.5, 0.125],
        [1.25, 0.5, -0.5],
        [0.5, 1.0, 2.0],
    ];

    const EMA: [[f32; 3]; 6] = [
        [1.0, -2.0, 0.5],
        [1.125, -1.75, 0.4375],
        [1.03125, -2.0625, 0.578125],
        [1.273_437_5, -2.171_875, 0.464_843_75],
        [1.267_578_1, -1.503_906_2, 0.223_632_81],
        [1.075_683_6, -0.877_929_7, 0.667_724_6],
    ];

    const SWA: [[f32; 3]; 3] = [[1.5, -1.0, 0.25], [1.75, -1.75, 0.1875], [1.3333334, -0.8333333, 0.7916667]];

    fn close(found: &[f32], expected: [f32; 3]) {
        let near = found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
        assert!(near, "{found:?} instead of {expected:?}");
    }

    /// `AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.75))` of PyTorch 2.15, updated after each.
    #[test]
    fn the_moving_average_is_pytorchs() {
        let found = after_each_step("ema_decay = 0.75", &WEIGHTS);
        EMA.iter().zip(&found).for_each(|(expected, found)| close(found, *expected));
    }

    /// `AveragedModel(model)` of PyTorch 2.15, updated after steps 2, 4 and 6.
    #[test]
    fn the_mean_of_some_steps_is_pytorchs() {
        let found = after_each_step("swa_start = 2\nswa_every = 2", &WEIGHTS);
        assert_eq!(found[0], [0.0; 3]);
        assert_eq!((&found[1], &found[2]), (&WEIGHTS[1].to_vec(), &WEIGHTS[1].to_vec()));
        SWA.iter()
            .zip([&found[1], &found[3], &found[5]])
            .for_each(|(expected, found)| close(found, *expected));
    }
}
