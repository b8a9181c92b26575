//! Layer dropout: for which samples a layer is skipped.
//!
//! The probability is `p_l = S(t) · D(l) · c`, drawn for every sample alone. A draw depends on no other draw:
//! it comes from ChaCha8 keyed by (seed, micro-batch, layer, sample), so a resumed run draws what an
//! uninterrupted run draws.

use crate::error::{Error, Result};
use crate::recipe::{DropoutTime, Recipe};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};

/// The layer dropout of one recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerDropout {
    layers: Vec<f64>, // D(l) · c
    time: DropoutTime,
    steps: u64,
    seed: u64,
    rescale: bool,
}

/// A micro-batch of a run. Steps and micro-batches are counted from 0 since the run's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MicroBatch {
    /// Its step.
    pub step: u64,
    /// Its index among all micro-batches of the run.
    pub index: u64,
}

impl LayerDropout {
    /// The layer dropout that a recipe asks for.
    ///
    /// # Errors
    /// As [`LayerDropoutKeys::probabilities`](crate::recipe::LayerDropoutKeys::probabilities).
    pub fn new(recipe: &Recipe) -> Result<Self> {
        let keys = &recipe.layer_dropout;
        let fault = |reason| Error::LayerDropout { path: recipe.path().to_owned(), reason };
        let layers = keys.probabilities(recipe.model.num_hidden_layers).map_err(fault)?;
        let (time, rescale) = (keys.time, keys.rescale);
        Ok(Self { layers, time, steps: recipe.training.steps, seed: recipe.training.seed, rescale })
    }

    /// The probability that `layer` is skipped in step `step`, counted from 0.
    pub fn probability(&self, step: u64, layer: usize) -> f64 {
        self.at(step) * self.layers[layer]
    }

    /// The factor of what a kept layer adds to the residual stream.
    pub fn scale(&self, step: u64, layer: usize) -> f64 {
        if self.rescale { 1.0 / (1.0 - self.probability(step, layer)) } else { 1.0 }
    }

    /// Replaces `kept` by the samples for which `layer` runs in a micro-batch.
    pub fn keep(&self, batch: MicroBatch, layer: usize, samples: usize, kept: &mut Vec<usize>) {
        let probability = self.probability(batch.step, layer);
        let runs = |sample| probability == 0.0 || self.draw(batch.index, layer, sample) >= probability;
        kept.clear();
        kept.extend((0..samples).filter(|&sample| runs(sample)));
    }

    /// S(t).
    fn at(&self, step: u64) -> f64 {
        let (step, steps) = (step as f64, self.steps as f64);
        match self.time {
            DropoutTime::Constant => 1.0,
            DropoutTime::Increasing => (step / (steps - 1.0).max(1.0)).exp2() - 1.0,
            DropoutTime::Decreasing => 1.0 - step / steps,
        }
    }

    /// Uniform in [0, 1).
    fn draw(&self, index: u64, layer: usize, sample: usize) -> f64 {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&self.seed.to_le_bytes());
        key[8..16].copy_from_slice(&index.to_le_bytes());
        key[16..20].copy_from_slice(&(layer as u32).to_le_bytes());
        key[20..24].copy_from_slice(&(sample as u32).to_le_bytes());
        key[24..].copy_from_slice(b"dropout\0");
        (ChaCha8Rng::from_seed(key).next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn recipe(layers: usize, keys: &str) -> Result<Recipe> {
        let text = format!(
            "[data]\ncorpus = \"c\"\n[model]\nnum_hidden_layers = {layers}\n[training]\nsteps = 11\n\
             [schedule]\nwarmup_steps = 0\n[layer_dropout]\n{keys}"
        );
        Recipe::from_toml(&text, Path::new("r.toml"))
    }

    fn dropout(layers: usize, keys: &str) -> LayerDropout {
        LayerDropout::new(&recipe(layers, keys).unwrap()).unwrap()
    }

    fn at(dropout: &LayerDropout, step: u64) -> Vec<f64> {
        (0..dropout.layers.len()).map(|layer| dropout.probability(step, layer)).collect()
    }

    #[track_caller]
    fn assert_near(found: &[f64], expected: &[f64]) {
        let near = found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-12);
        assert!(near && found.len() == expected.len(), "{found:?} instead of {expected:?}");
    }

    #[test]
    fn shapes_are_the_formulas_by_hand() {
        let none = "normalize = \"none\"\np_max = 0.8\n";
        assert_near(&at(&dropout(4, none), 0), &[0.0, 0.05, 0.2, 0.0]);
        let quadratic_last = format!("{none}drop_last = true");
        assert_near(&at(&dropout(4, &quadratic_last), 0), &[0.0, 0.05, 0.2, 0.45]);
        let linear = format!("{none}shape = \"linear\"");
        assert_near(&at(&dropout(5, &linear), 0), &[0.0, 0.2, 0.4, 0.6, 0.0]);
        let exponential = format!("{none}shape = \"exponential\"\ndrop_last = true");
        let half = 0.8 * (2f64.sqrt() - 1.0);
        assert_near(&at(&dropout(3, &exponential), 0), &[0.0, half, 0.8]);
        assert_near(&at(&dropout(3, "shape = \"none\""), 0), &[0.0; 3]);
        assert_near(&at(&dropout(1, "normalize = \"none\""), 0), &[0.0]);
    }

    #[test]
    fn the_two_readings_of_the_card() {
        // Σ l² for l = 0 … 22 is 3795.
        let none = at(&dropout(24, "normalize = \"none\""), 0);
        assert!((none.iter().sum::<f64>() - 0.5 * 3795.0 / 576.0).abs() < 1e-12, "3.29 layers");
        assert!((none[22] - 0.5 * (22.0f64 / 24.0).powi(2)).abs() < 1e-12);
        let sum = dropout(24, "");
        assert!((at(&sum, 0).iter().sum::<f64>() - 1.0).abs() < 1e-12);
        assert!((at(&sum, 0)[22] - 484.0 / 3795.0).abs() < 1e-12, "0.1275, at layer 22");
        assert_eq!(sum, dropout(24, "p_max = 0.25"), "p_max cancels");
        // By hand: D = 0, 1/16, 4/16 and the sum over the first three is 5/16.
        assert_near(&at(&dropout(4, ""), 0), &[0.0, 0.2, 0.8, 0.0]);
    }

    #[test]
    fn time_scales_after_normalising() {
        // Eleven steps: 0 … 10.
        for (time, start, middle, end) in [
            ("constant", 1.0, 1.0, 1.0),
            ("increasing", 0.0, 2f64.sqrt() - 1.0, 1.0),
            ("decreasing", 1.0, 6.0 / 11.0, 1.0 / 11.0),
        ] {
            let dropout = dropout(4, &format!("time = \"{time}\""));
            for (step, scale) in [(0, start), (5, middle), (10, end)] {
                assert_near(&at(&dropout, step), &[0.0, 0.2 * scale, 0.8 * scale, 0.0]);
            }
        }
    }

    #[test]
    fn rescaling_keeps_the_expectation() {
        let dropout = dropout(4, "rescale = true");
        assert_near(&(0..4).map(|layer| dropout.scale(0, layer)).collect::<Vec<_>>(), &[1.0, 1.25, 5.0, 1.0]);
    }

    #[test]
    fn frequencies_are_the_probabilities_by_count() {
        let (samples, batches) = (16, 4000);
        let mut total = 0;
        let dropout = dropout(24, "normalize = \"none\"");
        for layer in 0..24 {
            let (mut kept, mut dropped) = (Vec::new(), 0);
            for index in 0..batches {
                dropout.keep(MicroBatch { step: index / 4, index }, layer, samples, &mut kept);
                dropped += samples - kept.len();
            }
            let (n, p) = ((samples as u64 * batches) as f64, dropout.probability(0, layer));
            // Five standard deviations.
            assert!((dropped as f64 - n * p).abs() <= 5.0 * (n * p * (1.0 - p)).sqrt(), "layer {layer}");
            total += dropped;
        }
        let mean = total as f64 / (samples as u64 * batches) as f64;
        assert!((mean - 3.294).abs() < 0.05, "{mean} layers dropped per forward");
    }

    #[test]
    fn draws_depend_on_everything_they_should() {
        let dropout = dropout(24, "");
        let all = [(1, 2, 3), (2, 2, 3), (1, 3, 3), (1, 2, 4)].map(|(i, l, s)| dropout.draw(i, l, s));
        assert!(all[1..].iter().all(|draw| *draw != all[0]), "{all:?}");
        assert_eq!(dropout.draw(1, 2, 3), all[0]);
    }

    #[test]
    fn impossible_probabilities_are_errors_that_say_so() {
        for (layers, keys, expected) in [
            (2, "", "sum of zero"),
            (1, "", "sum of zero"),
            (3, "shape = \"linear\"", "layer 1 of 0 to 2 would be dropped with a chance of 1.000, above 0.9"),
            (24, "shape = \"linear\"\nnormalize = \"none\"\np_max = 0.95", "lower p_max"),
        ] {
            let message = recipe(layers, keys).unwrap_err().to_string();
            assert!(
                message.starts_with("r.toml: [layer_dropout] ") && message.contains(expected),
                "{message}"
            );
        }
    }
}
