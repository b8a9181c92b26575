//! A training run from its journal: its stability, and its curves.

use crate::stability::{GradNorm, Stability};
use crate::{Result, Spread};
use offramp_model::journal::{self, Record, StartRecord, StepRecord, ValidationRecord};
use serde::Serialize;
use std::path::Path;

/// The most points of a curve: more cannot be told apart.
const POINTS: usize = 1000;

/// A training run in numbers.
#[derive(Clone, Debug, Serialize)]
pub struct TrainingReport {
    /// The record of the start, if the journal has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start: Option<StartRecord>,
    /// The number of steps.
    pub steps: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// The seconds of all steps, without validations and checkpoints.
    pub seconds: f64,
    /// The last layer's loss, smoothed as `docs/measures.md` defines it.
    pub smoothed_loss: f64,
    /// The gradient's norm before clipping, over all steps in which it was finite.
    pub grad_norm: GradNorm,
    /// The same for the steps after the warm-up: after the first step with the largest learning rate.
    pub grad_norm_after_warmup: GradNorm,
    /// The same for the steps with 4-bit activations, if there were any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm_int4: Option<GradNorm>,
    /// Steps whose loss was more than five standard deviations above the mean of the fifty before.
    pub loss_spikes: u64,
    /// Steps that changed no weight, because their loss or gradient was not finite.
    pub skipped: u64,
    /// Training tokens per second, over all steps.
    pub tokens_per_second: Spread,
    /// The validations, in order.
    pub validation: Vec<ValidationRecord>,
    /// The curves.
    #[serde(skip)]
    pub curves: Curves,
}

/// Points (step, value), at most a thousand of each. A point stands for the steps since the point before.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// The last layer's loss: each point is a mean.
    pub loss: Vec<(f64, f64)>,
    /// The smoothed loss.
    pub smoothed_loss: Vec<(f64, f64)>,
    /// The gradient's norm: each point is a maximum.
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
        let (mut steps, mut validation, mut start) = (Vec::new(), Vec::new(), None);
        for record in journal::read(path)? {
            match record {
                Record::Step(step) => steps.push(step),
                Record::Validation(record) => validation.push(record),
                Record::Start(record) => {
                    let first: &mut StartRecord = start.get_or_insert_with(|| record.clone());
                    // The version that began the run may not have written it.
                    first.checkpoint = first.checkpoint.take().or(record.checkpoint);
                }
                _ => (),
            }
        }
        Ok(Self::of(&steps, validation).map(|report| Self { start, ..report }))
    }

    fn of(steps: &[StepRecord], validation: Vec<ValidationRecord>) -> Option<Self> {
        let last = steps.last()?;
        let mut stability = Stability::default();
        let after = |step| {
            stability.add(step);
            stability.smoothed_loss()
        };
        let smoothed: Vec<f64> = steps.iter().map(after).collect(); // one for each step
        let before = std::iter::once(0).chain(steps.iter().map(|step| step.tokens));
        let times = steps.iter().zip(before);
        let times =
            times.map(|(step, before)| step.tokens.saturating_sub(before) as f64 / step.tokens_per_second);
        let speeds: Vec<f64> = finite(steps.iter().map(|step| step.tokens_per_second)).collect();
        Some(Self {
            start: None,
            steps: last.step,
            tokens: last.tokens,
            seconds: finite(times).sum(),
            smoothed_loss: stability.smoothed_loss(),
            grad_norm: stability.grad_norm(),
            grad_norm_after_warmup: GradNorm::of(after_warmup(steps).iter().map(|step| step.grad_norm)),
            grad_norm_int4: int4(steps),
            loss_spikes: stability.loss_spikes(),
            skipped: stability.skipped(),
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

/// The steps after the first one with the largest learning rate.
fn after_warmup(steps: &[StepRecord]) -> &[StepRecord] {
    let largest = steps.iter().map(|step| step.learning_rate).fold(f64::NEG_INFINITY, f64::max);
    let peak = steps.iter().position(|step| step.learning_rate == largest);
    peak.map_or(&[], |peak| &steps[peak + 1..])
}

/// The norms of the steps with 4-bit activations.
fn int4(steps: &[StepRecord]) -> Option<GradNorm> {
    let four = steps.iter().filter(|step| step.activation_bits == Some(4));
    (four.clone().count() > 0).then(|| GradNorm::of(four.map(|step| step.grad_norm)))
}

fn finite(values: impl Iterator<Item = f64>) -> impl Iterator<Item = f64> {
    values.filter(|value| value.is_finite())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// A curve over the steps, in at most [`POINTS`] points. Each point summarizes the finite values of its
/// steps.
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
            activation_bits: None,
            tokens_per_second: 100.0,
        };
        losses.into_iter().enumerate().map(step).collect()
    }

    fn report(losses: impl IntoIterator<Item = f64>) -> TrainingReport {
        TrainingReport::of(&steps(losses), Vec::new()).unwrap()
    }

    #[test]
    fn steps_that_are_not_finite_are_counted_and_left_out() {
        let report = report([4.0, f64::NAN, f64::INFINITY, 2.0]);
        assert_eq!((report.steps, report.skipped, report.grad_norm.max), (4, 2, 4.0));
        assert_eq!(report.smoothed_loss, 3.0, "the mean of the first");
        assert_eq!(report.curves.loss, [(1.0, 4.0), (4.0, 2.0)]);
        assert!(TrainingReport::of(&[], Vec::new()).is_none());
    }

    #[test]
    fn parts_of_a_run_have_norms_of_their_own() {
        let mut steps = steps((1..=300).map(f64::from));
        for step in &mut steps {
            let index = step.step as f64;
            step.learning_rate = if index <= 100.0 { index } else { 200.0 - 0.5 * index };
            step.activation_bits = Some(if step.step > 200 { 4 } else { 8 });
        }
        steps[250].grad_norm = f64::NAN;
        let report = TrainingReport::of(&steps, Vec::new()).unwrap();
        assert_eq!(
            (report.grad_norm_after_warmup.max, report.grad_norm_after_warmup.percentile_99),
            (300.0, 299.0)
        );
        let four = report.grad_norm_int4.unwrap();
        assert_eq!((four.median, four.percentile_99, report.skipped), (250.0, 300.0, 1)); // of 99
        steps.iter_mut().for_each(|step| step.activation_bits = None);
        assert!(TrainingReport::of(&steps, Vec::new()).unwrap().grad_norm_int4.is_none());
    }

    #[test]
    fn long_runs_are_drawn_in_few_points() {
        let curves = report((0..2500).map(|i| f64::from(i % 3))).curves;
        assert_eq!((curves.loss.len(), curves.loss[0], curves.loss[833]), (834, (3.0, 1.0), (2500.0, 0.0)));
        assert_eq!(curves.grad_norm[0], (3.0, 2.0), "the most, so that no peak is lost");
    }
}
