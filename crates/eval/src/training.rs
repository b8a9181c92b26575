//! What a journal says of a training run: how stable it was, and the curves to draw.

use crate::{Result, Spread};
use offramp_model::journal::{self, Record, StepRecord, ValidationRecord};
use serde::Serialize;
use std::path::Path;

/// What a step counts in the smoothed loss; the first ones count more, as in a mean.
const SMOOTHING: f64 = 0.05;
/// Steps before the one that may be a spike.
const WINDOW: usize = 50;
/// Standard deviations above their mean from which it is one.
const SPIKE: f64 = 5.0;
/// Points of a curve, at most: more than can be told apart.
const POINTS: usize = 1000;

/// A training run in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingReport {
    /// Steps made.
    pub steps: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// The last layer's loss, smoothed: a step counts a twentieth, the one before 0.95 of that, and so on.
    pub smoothed_loss: f64,
    /// The gradient's norm before clipping, over all steps in which it was finite.
    pub grad_norm: GradNorm,
    /// Steps whose loss was more than five standard deviations above the mean of the fifty before.
    pub loss_spikes: u64,
    /// Steps that changed nothing, as their loss or gradient was not finite.
    pub skipped: u64,
    /// Training tokens per second, over all steps.
    pub tokens_per_second: Spread,
    /// What was validated, in order.
    pub validation: Vec<ValidationRecord>,
    /// The curves.
    #[serde(skip)]
    pub curves: Curves,
}

/// The distribution of the gradient's norm.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct GradNorm {
    /// Half of the steps had less.
    pub median: f64,
    /// One step in a hundred had more.
    pub percentile_99: f64,
    /// The most.
    pub max: f64,
}

/// Points (step, value), at most a thousand each; a point stands for the steps since the one before.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// The last layer's loss, each point a mean.
    pub loss: Vec<(f64, f64)>,
    /// The smoothed loss.
    pub smoothed_loss: Vec<(f64, f64)>,
    /// The gradient's norm, each point a maximum.
    pub grad_norm: Vec<(f64, f64)>,
    /// The learning rate.
    pub learning_rate: Vec<(f64, f64)>,
}

impl TrainingReport {
    /// Reads a journal; `None` if no step was made.
    ///
    /// # Errors
    /// If the journal cannot be read or is damaged.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let (mut steps, mut validation) = (Vec::new(), Vec::new());
        for record in journal::read(path)? {
            match record {
                Record::Step(step) => steps.push(step),
                Record::Validation(record) => validation.push(record),
                _ => (),
            }
        }
        Ok(Self::of(&steps, validation))
    }

    fn of(steps: &[StepRecord], validation: Vec<ValidationRecord>) -> Option<Self> {
        let last = steps.last()?;
        let smoothed = smoothed(steps);
        let is_skipped = |step: &&StepRecord| !step.loss.is_finite() || !step.grad_norm.is_finite();
        let speeds: Vec<f64> = finite(steps.iter().map(|step| step.tokens_per_second)).collect();
        Some(Self {
            steps: last.step,
            tokens: last.tokens,
            smoothed_loss: smoothed.last().copied().unwrap_or(f64::NAN),
            grad_norm: GradNorm::of(finite(steps.iter().map(|step| step.grad_norm)).collect()),
            loss_spikes: spikes(steps),
            skipped: steps.iter().filter(is_skipped).count() as u64,
            tokens_per_second: if speeds.is_empty() {
                Spread::of(vec![f64::NAN])
            } else {
                Spread::of(speeds)
            },
            validation,
            curves: Curves {
                loss: thinned(steps, |i| steps[i].final_loss, mean),
                smoothed_loss: thinned(steps, |i| smoothed[i], |values| values[values.len() - 1]),
                grad_norm: thinned(
                    steps,
                    |i| steps[i].grad_norm,
                    |values| values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                ),
                learning_rate: thinned(steps, |i| steps[i].learning_rate, |values| values[values.len() - 1]),
            },
        })
    }
}

impl GradNorm {
    fn of(mut norms: Vec<f64>) -> Self {
        norms.sort_by(f64::total_cmp);
        // The nearest rank: the least value that so many of all do not exceed.
        let rank = |share: f64| {
            let rank = (share * norms.len() as f64).ceil() as usize;
            norms.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
        };
        Self { median: rank(0.5), percentile_99: rank(0.99), max: rank(1.0) }
    }
}

fn finite(values: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    values.filter(|value| value.is_finite())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The smoothed loss after each step; a loss that is not finite changes nothing.
fn smoothed(steps: &[StepRecord]) -> Vec<f64> {
    let (mut now, mut count) = (f64::NAN, 0.0);
    let after = steps.iter().map(|step| {
        if step.final_loss.is_finite() {
            count += 1.0;
            let share = SMOOTHING.max(1.0 / count);
            now = if count > 1.0 { now + share * (step.final_loss - now) } else { step.final_loss };
        }
        now
    });
    after.collect()
}

fn spikes(steps: &[StepRecord]) -> u64 {
    let losses: Vec<f64> = finite(steps.iter().map(|step| step.final_loss)).collect();
    let is_spike = |window: &&[f64]| {
        let (before, now) = (&window[..WINDOW], window[WINDOW]);
        let mean = mean(before);
        let variance = before.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / WINDOW as f64;
        now > mean + SPIKE * variance.sqrt()
    };
    losses.windows(WINDOW + 1).filter(is_spike).count() as u64
}

/// A curve over the steps in at most [`POINTS`] points, each the sum-up of the finite values in its stretch.
fn thinned(
    steps: &[StepRecord],
    value: impl Fn(usize) -> f64,
    sum_up: impl Fn(&[f64]) -> f64,
) -> Vec<(f64, f64)> {
    let stretch = steps.len().div_ceil(POINTS).max(1);
    let starts = (0..steps.len()).step_by(stretch);
    let points = starts.filter_map(|start| {
        let end = (start + stretch).min(steps.len());
        let values: Vec<f64> = finite((start..end).map(&value)).collect();
        (!values.is_empty()).then(|| (steps[end - 1].step as f64, sum_up(&values)))
    });
    points.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(losses: impl IntoIterator<Item = f64>) -> Vec<StepRecord> {
        let step = |(index, loss): (usize, f64)| StepRecord {
            step: index as u64 + 1,
            tokens: 10 * (index as u64 + 1),
            loss,
            final_loss: loss,
            exit_losses: Vec::new(),
            grad_norm: loss,
            learning_rate: 1e-3,
            tokens_per_second: 100.0,
        };
        losses.into_iter().enumerate().map(step).collect()
    }

    fn report(losses: impl IntoIterator<Item = f64>) -> TrainingReport {
        TrainingReport::of(&steps(losses), Vec::new()).unwrap()
    }

    #[test]
    fn norms_are_ranked() {
        let norms = report((1..=200).rev().map(f64::from)).grad_norm;
        assert_eq!((norms.median, norms.percentile_99, norms.max), (100.0, 198.0, 200.0));
        let one = report([2.5]).grad_norm;
        assert_eq!((one.median, one.percentile_99, one.max), (2.5, 2.5, 2.5));
    }

    #[test]
    fn a_spike_stands_out_from_the_steps_before() {
        let wave = |i: usize| 3.0 + if i.is_multiple_of(2) { 0.1 } else { -0.1 };
        assert_eq!(report((0..200).map(wave)).loss_spikes, 0);
        // Mean 3, deviation 0.1: the threshold is 3.5.
        let with = |spike: f64| report((0..200).map(|i| if i == 120 { spike } else { wave(i) })).loss_spikes;
        assert_eq!((with(3.49), with(3.51)), (0, 1));
        let early = report((0..60).map(|i| if i == 20 { 9.0 } else { wave(i) }));
        assert_eq!(early.loss_spikes, 0, "too few steps to tell");
    }

    #[test]
    fn steps_that_are_not_finite_are_counted_and_left_out() {
        let report = report([4.0, f64::NAN, f64::INFINITY, 2.0]);
        assert_eq!((report.steps, report.skipped, report.grad_norm.max), (4, 2, 4.0));
        assert_eq!(report.smoothed_loss, 3.0, "the mean of the first");
        let settled = self::report([1.0; 100].into_iter().chain([3.0]));
        assert!((settled.smoothed_loss - 1.1).abs() < 1e-12, "a twentieth later: {}", settled.smoothed_loss);
        assert_eq!(report.curves.loss, [(1.0, 4.0), (4.0, 2.0)]);
        assert!(TrainingReport::of(&[], Vec::new()).is_none());
    }

    #[test]
    fn long_runs_are_drawn_in_few_points() {
        let curves = report((0..2500).map(|i| f64::from(i % 3))).curves;
        assert_eq!((curves.loss.len(), curves.loss[0], curves.loss[833]), (834, (3.0, 1.0), (2500.0, 0.0)));
        assert_eq!(curves.grad_norm[0], (3.0, 2.0), "the most, so that no peak is lost");
    }
}
