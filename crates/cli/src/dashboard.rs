//! The words of a training run's display: a few lines for a terminal, one long line for a file.

use crate::number::{bytes, duration, fixed, grouped, rate};
use crate::screen::{bar, cut};
use offramp_eval::Memory;
use offramp_model::journal::{ExitLoss, ValidationRecord};
use std::time::Duration;

/// The state of a run after a step.
#[derive(Clone, Debug)]
pub(crate) struct RunState {
    pub(crate) step: u64,
    pub(crate) steps: u64,
    pub(crate) remaining: Duration,
    pub(crate) tokens_per_second: f64,
    pub(crate) loss: f64,
    pub(crate) smoothed_loss: f64,
    pub(crate) grad_norm: f64,
    /// The median so far.
    pub(crate) usual_norm: f64,
    pub(crate) learning_rate: f64,
    pub(crate) skipped: u64,
    pub(crate) loss_spikes: u64,
    pub(crate) memory: Option<Memory>,
}

/// The latest events that do not happen in every step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest {
    pub(crate) validation: Option<ValidationRecord>,
    /// The step of the newest checkpoint.
    pub(crate) saved: Option<u64>,
}

/// The dashboard: three or four lines of at most `width` columns. The most important facts come first; one
/// that does not fit is left out.
pub(crate) fn lines(state: &RunState, latest: &Latest, width: usize) -> Vec<String> {
    let percent = percent(state);
    // A fixed part of the width, so that the bar keeps its length when a number gets another digit.
    let bar = bar(state.step, state.steps, (width / 5).min(24));
    let head = format!("{bar} {percent:>3}%  ");
    let rest = width.saturating_sub(head.chars().count());
    let mut health = memory(state);
    health.extend([skipped(state), spikes(state)]);
    health.extend(latest.saved.map(|step| format!("saved step {}", grouped(step))));
    let first = head + &fit(&pace(state), rest);
    let mut lines = vec![cut(first.trim_end(), width), fit(&learning(state), width)];
    lines.extend(latest.validation.as_ref().map(|record| exits(record, width)));
    lines.push(fit(&health, width));
    lines
}

/// The same facts in one line.
pub(crate) fn plain(state: &RunState) -> String {
    let step = format!("step {}/{} ({}%)", grouped(state.step), grouped(state.steps), percent(state));
    let mut facts = vec![step];
    facts.extend(learning(state));
    let [remaining, _, speed] = pace(state);
    facts.extend([speed, remaining]);
    facts.extend(memory(state));
    facts.extend([skipped(state), spikes(state)]);
    facts.join(" · ")
}

/// A validation in one line, with every exit.
pub(crate) fn validation(record: &ValidationRecord) -> String {
    let exits: Vec<_> = record.exits.iter().map(exit).collect();
    let (step, exits) = (grouped(record.step), exits.join(", "));
    format!(
        "validation at step {step}: exit {exits} (nats/perplexity); {} bits/byte",
        fixed(record.bits_per_byte, 3)
    )
}

/// The validation in `width` columns. Exits in the middle are left out first, and the full model never.
fn exits(record: &ValidationRecord, width: usize) -> String {
    let head = format!("validated {}: exit ", grouped(record.step));
    let mut exits: Vec<_> = record.exits.iter().map(exit).collect();
    loop {
        let line = format!("{head}{}", exits.join(", "));
        if line.chars().count() <= width || exits.len() < 2 {
            return cut(&line, width);
        }
        exits.remove((exits.len() - 1) / 2);
    }
}

fn exit(exit: &ExitLoss) -> String {
    format!("{} {}/{}", exit.exit_layer, fixed(exit.loss, 3), rate(exit.perplexity()))
}

fn percent(state: &RunState) -> u64 {
    100 * state.step / state.steps.max(1)
}

fn pace(state: &RunState) -> [String; 3] {
    [
        format!("{} left", duration(state.remaining)),
        format!("step {}/{}", grouped(state.step), grouped(state.steps)),
        format!("{} tokens/s", rate(state.tokens_per_second)),
    ]
}

fn learning(state: &RunState) -> [String; 4] {
    [
        format!("loss {}, smoothed {}", fixed(state.loss, 3), fixed(state.smoothed_loss, 3)),
        format!("gradient {}", fixed(state.grad_norm, 2)),
        format!("median {}", fixed(state.usual_norm, 2)),
        format!("rate {:.1e}", state.learning_rate),
    ]
}

fn memory(state: &RunState) -> Vec<String> {
    let memory = state.memory.iter();
    memory.map(|memory| format!("memory {}, peak {}", bytes(memory.resident), bytes(memory.peak))).collect()
}

fn skipped(state: &RunState) -> String {
    format!("{} skipped", grouped(state.skipped))
}

fn spikes(state: &RunState) -> String {
    format!("{} loss spike{}", grouped(state.loss_spikes), if state.loss_spikes == 1 { "" } else { "s" })
}

/// The first facts, as many as fit.
fn fit(facts: &[String], width: usize) -> String {
    let mut line = String::new();
    for fact in facts {
        let separator = if line.is_empty() { "" } else { " · " };
        if format!("{line}{separator}{fact}").chars().count() > width {
            break;
        }
        line += separator;
        line += fact;
    }
    match facts.first() {
        Some(first) if line.is_empty() => cut(first, width),
        _ => line,
    }
}

#[cfg(test)]
mod tests;
