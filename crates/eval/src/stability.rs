//! The stability of a run, step by step. The live display and the final report compute the same numbers with
//! it.

use crate::smoothed::Smoothed;
use offramp_model::journal::StepRecord;
use serde::Serialize;
use std::collections::VecDeque;

/// The number of steps that a step's loss is compared with.
const WINDOW: usize = 50;
/// A spike is this many standard deviations above their mean.
const SPIKE: f64 = 5.0;

/// The numbers of the steps so far.
#[derive(Clone, Debug, Default)]
pub struct Stability {
    loss: Smoothed,
    seconds_per_token: Smoothed,
    norms: Vec<f64>,       // all finite ones, in any order
    window: VecDeque<f64>, // the newest finite losses, WINDOW at most
    loss_spikes: u64,
    skipped: u64,
}

/// The distribution of the gradient's norm.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GradNorm {
    /// The median.
    pub median: f64,
    /// The 99th percentile.
    pub percentile_99: f64,
    /// The maximum.
    pub max: f64,
}

impl GradNorm {
    /// The distribution of the finite values of `norms`; NaN if there is none.
    pub(crate) fn of(norms: impl Iterator<Item = f64>) -> Self {
        Self::ranked(&mut norms.filter(|norm| norm.is_finite()).collect::<Vec<_>>())
    }

    /// Takes time linear in the number of norms.
    fn ranked(norms: &mut [f64]) -> Self {
        // The nearest rank: the least value that this share of all values does not exceed.
        let mut rank = |share: f64| {
            let rank = (share * norms.len() as f64).ceil() as usize;
            let index = rank.checked_sub(1)?;
            Some(*norms.select_nth_unstable_by(index, f64::total_cmp).1)
        };
        let [median, percentile_99, max] = [0.5, 0.99, 1.0].map(|share| rank(share).unwrap_or(f64::NAN));
        Self { median, percentile_99, max }
    }
}

impl Stability {
    /// Adds the next step.
    pub fn add(&mut self, step: &StepRecord) {
        if !step.loss.is_finite() || !step.grad_norm.is_finite() {
            self.skipped += 1;
        }
        if step.grad_norm.is_finite() {
            self.norms.push(step.grad_norm);
        }
        // Times can be averaged, rates cannot: a slow step would weigh too little.
        self.seconds_per_token.add(1.0 / step.tokens_per_second);
        self.loss.add(step.final_loss);
        if step.final_loss.is_finite() {
            self.watch(step.final_loss);
        }
    }

    /// Counts the loss if it is a spike.
    fn watch(&mut self, loss: f64) {
        if self.window.len() == WINDOW {
            let mean = self.window.iter().sum::<f64>() / WINDOW as f64;
            let variance =
                self.window.iter().map(|before| (before - mean).powi(2)).sum::<f64>() / WINDOW as f64;
            if loss > mean + SPIKE * variance.sqrt() {
                self.loss_spikes += 1;
            }
            self.window.pop_front();
        }
        self.window.push_back(loss);
    }

    /// The last layer's loss, smoothed as `docs/measures.md` defines it; NaN before the first finite loss.
    pub fn smoothed_loss(&self) -> f64 {
        self.loss.value()
    }

    /// Training tokens per second: the inverse of the smoothed time per token.
    pub fn tokens_per_second(&self) -> f64 {
        1.0 / self.seconds_per_token.value()
    }

    /// The gradient's norm before clipping, over all steps in which it was finite; NaN if there is none.
    ///
    /// Takes time linear in the number of steps.
    pub fn grad_norm(&mut self) -> GradNorm {
        GradNorm::ranked(&mut self.norms)
    }

    /// Steps whose loss was more than five standard deviations above the mean of the fifty before.
    pub fn loss_spikes(&self) -> u64 {
        self.loss_spikes
    }

    /// Steps that changed no weight, because their loss or gradient was not finite.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(loss: f64) -> StepRecord {
        StepRecord {
            step: 1,
            tokens: 10,
            loss,
            final_loss: loss,
            exit_losses: Vec::new(),
            grad_norm: loss,
            learning_rate: 1e-3,
            activation_bits: None,
            tokens_per_second: 100.0,
        }
    }

    fn after(losses: impl IntoIterator<Item = f64>) -> Stability {
        let mut stability = Stability::default();
        losses.into_iter().for_each(|loss| stability.add(&step(loss)));
        stability
    }

    #[test]
    fn norms_are_ranked() {
        let mut stability = after((1..=200).rev().map(f64::from));
        for _ in 0..2 {
            let norms = stability.grad_norm();
            assert_eq!((norms.median, norms.percentile_99, norms.max), (100.0, 198.0, 200.0));
        }
        let one = after([2.5]).grad_norm();
        assert_eq!((one.median, one.percentile_99, one.max), (2.5, 2.5, 2.5));
        assert!(after([f64::NAN]).grad_norm().median.is_nan());
    }

    #[test]
    fn a_spike_stands_out_from_the_steps_before() {
        let wave = |i: usize| 3.0 + if i.is_multiple_of(2) { 0.1 } else { -0.1 };
        assert_eq!(after((0..200).map(wave)).loss_spikes(), 0);
        // Mean 3, deviation 0.1: the threshold is 3.5.
        let with = |spike: f64| after((0..200).map(|i| if i == 120 { spike } else { wave(i) })).loss_spikes();
        assert_eq!((with(3.49), with(3.51)), (0, 1));
        let early = after((0..60).map(|i| if i == 20 { 9.0 } else { wave(i) }));
        assert_eq!(early.loss_spikes(), 0, "too few steps to tell");
    }

    #[test]
    fn steps_that_are_not_finite_are_counted_and_left_out() {
        let mut stability = after([4.0, f64::NAN, f64::INFINITY, 2.0]);
        assert_eq!((stability.skipped(), stability.grad_norm().max), (2, 4.0));
        assert_eq!(stability.smoothed_loss(), 3.0);
    }

    #[test]
    fn speed_is_tokens_over_time() {
        let mut stability = Stability::default();
        for tokens_per_second in [100.0, 300.0] {
            stability.add(&StepRecord { tokens_per_second, ..step(1.0) });
        }
        // Two equal steps: 10 tokens in 0.1 s, 10 more in 0.033 s.
        assert!((stability.tokens_per_second() - 150.0).abs() < 1e-9);
    }
}
