//! Confidence exits: the threshold is calibrated for an agreement, or given.

use crate::number::grouped;
use crate::progress::ProgressBar;
use crate::stories::{self, Reading};
use anyhow::Result;
use offramp_engine::ConfidenceExit;
use offramp_eval::{Calibration, CalibrationOptions, calibrate};
use offramp_pipeline::Pipeline;
use std::path::PathBuf;

/// About this many tokens of text are used to calibrate a threshold.
const TOKENS: u64 = 8192;

#[derive(Clone, Debug, clap::Args)]
#[group(id = "confidence_arguments")]
pub(super) struct Arguments {
    /// Exit early where an exit is sure enough. SHARE is the share of tokens that must stay the full model's,
    /// such as 0.98. This is faster, and the text may change
    #[arg(long, value_name = "SHARE", conflicts_with_all = ["exit_layer", "speculate"])]
    agreement: Option<f64>,
    /// Exits at which a token may exit early [default: two thirds of the depth]
    #[arg(long, value_name = "E,…", value_delimiter = ',')]
    confidence_exits: Vec<usize>,
    /// The text for calibration [default: the stories that come with offramp]
    #[arg(long, value_name = "PATH", requires = "agreement")]
    calibrate_on: Vec<PathBuf>,
    /// A threshold from an earlier calibration, instead of an agreement
    #[arg(long, value_name = "GAP", conflicts_with_all = ["agreement", "exit_layer", "speculate"])]
    confidence_threshold: Option<f32>,
}

impl Arguments {
    /// The policy, if one is asked for, and its calibration.
    pub(super) fn policy(
        &self,
        pipeline: &Pipeline,
        reading: &Reading,
    ) -> Result<Option<(ConfidenceExit, Option<Calibration>)>> {
        let exits = match self.confidence_exits.is_empty() {
            true => vec![(2 * pipeline.model().config().num_hidden_layers / 3).max(1)],
            false => self.confidence_exits.clone(),
        };
        match (self.agreement, self.confidence_threshold) {
            (Some(agreement), _) => {
                let options =
                    CalibrationOptions { exits, agreement, context: None, max_tokens: Some(TOKENS) };
                let found = self.calibrate(pipeline, reading, options)?;
                Ok(Some((found.policy(), Some(found))))
            }
            (None, Some(threshold)) => Ok(Some((ConfidenceExit { exits, threshold }, None))),
            (None, None) if self.confidence_exits.is_empty() => Ok(None),
            (None, None) => anyhow::bail!(
                "--confidence-exits says where to leave, not when: add --agreement 0.98 or --confidence-threshold"
            ),
        }
    }

    fn calibrate(
        &self,
        pipeline: &Pipeline,
        reading: &Reading,
        options: CalibrationOptions,
    ) -> Result<Calibration> {
        let stream = stories::open(&self.calibrate_on, reading, pipeline.tokenizer(), TOKENS + 1)?;
        let mut progress = ProgressBar::new(1);
        let mut show = |done: u64, total: u64| {
            progress.report(done, total, |left| {
                format!("calibrated on {} of {} tokens, {left} left", grouped(done), grouped(total))
            });
        };
        Ok(calibrate(pipeline.model(), &stream, &options, &mut show)?)
    }
}

/// The result of a calibration.
pub(super) fn describe(found: &Calibration, depth: usize) -> String {
    let Calibration { exits, threshold, asked, held_out, .. } = found;
    let exits: Vec<_> = exits.iter().map(usize::to_string).collect();
    let met = if found.is_met() { "" } else { ", less than was asked for" };
    format!(
        "[calibrated: exit {} at a lead of {threshold:.3} logits; on other text it agrees at {:.1} % ± {:.1} of {} tokens \
         (asked for {:.1} %{met}), {:.1} of {depth} layers in the mean, {:.0} % of the work]",
        exits.join(", "),
        100.0 * held_out.agreement,
        100.0 * held_out.standard_error,
        grouped(held_out.tokens),
        100.0 * asked,
        held_out.mean_depth,
        100.0 * held_out.work
    )
}
