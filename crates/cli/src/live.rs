//! What a training run shows of itself on stderr: one line that moves in a terminal, lines now and then
//! elsewhere, and a line that stays for each validation.

use crate::number::{grouped, rate};
use crate::progress::Progress;
use offramp_model::journal::{StepRecord, ValidationRecord};
use offramp_train::Event;

/// How much of the smoothed loss a step leaves as it was.
const SMOOTHING: f64 = 0.95;

/// The display of one run.
#[derive(Debug)]
pub(crate) struct Live {
    progress: Progress,
    steps: u64,
    first: u64,
    smoothed: Option<f64>,
}

impl Live {
    pub(crate) fn new() -> Self {
        Self { progress: Progress::new(1), steps: 0, first: 0, smoothed: None }
    }

    /// Shows what happened.
    pub(crate) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Started { step, steps, parameters, tokens_per_step, train_tokens, valid_tokens } => {
                self.progress = Progress::new(steps);
                (self.steps, self.first) = (steps, step);
                let [parameters, train, valid] = [parameters, train_tokens, valid_tokens].map(grouped);
                self.progress.line(&format!(
                    "{parameters} parameters; {train} training tokens, {valid} validation tokens"
                ));
                let from = if step > 0 { format!(", from step {}", grouped(step)) } else { String::new() };
                let [steps, tokens] = [steps, tokens_per_step].map(grouped);
                self.progress.line(&format!("{steps} steps of {tokens} tokens{from}"));
            }
            Event::Step { record, skipped } => self.step(record, skipped),
            Event::Validation { record } => self.progress.line(&validation(record)),
            Event::Checkpoint { step, path } => {
                self.progress.line(&format!("step {}: saved {}", grouped(step), path.display()));
            }
        }
    }

    fn step(&mut self, record: &StepRecord, skipped: u64) {
        let before = self.smoothed.unwrap_or(record.final_loss);
        let smoothed = SMOOTHING * before + (1.0 - SMOOTHING) * record.final_loss;
        if smoothed.is_finite() {
            self.smoothed = Some(smoothed);
        }
        let (done, all) = (record.step - self.first, self.steps - self.first);
        let remaining = self.progress.remaining(done, all);
        self.progress.set(record.step, || {
            let skipped = if skipped > 0 { format!(" · {skipped} skipped") } else { String::new() };
            // A narrow terminal cuts the end off: what matters most comes first.
            format!(
                "step {} · loss {:.3}, smoothed {smoothed:.3} · {remaining} left · {} tokens/s · gradient {:.2} · \
                 rate {:.1e}{skipped}",
                grouped(record.step),
                record.final_loss,
                rate(record.tokens_per_second),
                record.grad_norm,
                record.learning_rate,
            )
        });
    }
}

fn validation(record: &ValidationRecord) -> String {
    let exits: Vec<_> =
        record.exits.iter().map(|exit| format!("{} {:.3}", exit.exit_layer, exit.loss)).collect();
    let (step, exits) = (grouped(record.step), exits.join(", "));
    format!("step {step}: exit {exits} nats; {:.3} bits/byte", record.bits_per_byte)
}
