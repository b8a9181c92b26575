//! What a training run shows of itself, in words: a few lines for a terminal, one long line for a file.

use crate::number::{bytes, duration, fixed, grouped, rate};
use offramp_eval::Memory;
use offramp_model::journal::{ExitLoss, ValidationRecord};
use std::time::Duration;

/// Where a run stands after a step.
#[derive(Clone, Debug)]
pub(crate) struct State {
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

/// What happened last, of what does not happen in every step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Latest {
    pub(crate) validation: Option<ValidationRecord>,
    /// The step of the newest checkpoint.
    pub(crate) saved: Option<u64>,
}

/// The dashboard: three or four lines of at most `width` columns. What does not fit is left out whole; what matters
/// most comes first.
pub(crate) fn lines(state: &State, latest: &Latest, width: usize) -> Vec<String> {
    let percent = percent(state);
    // A fixed part of the width, so that the bar does not tremble when a number gets a digit more.
    let bar = bar(state.step, state.steps, (width / 5).min(24));
    let head = format!("{bar} {percent:>3}%  ");
    let room = width.saturating_sub(head.chars().count());
    let mut health = memory(state);
    health.extend([skipped(state), spikes(state)]);
    health.extend(latest.saved.map(|step| format!("saved step {}", grouped(step))));
    let first = head + &fit(&pace(state), room);
    let mut lines = vec![cut(first.trim_end(), width), fit(&learning(state), width)];
    lines.extend(latest.validation.as_ref().map(|record| exits(record, width)));
    lines.push(fit(&health, width));
    lines
}

/// The same facts in one line.
pub(crate) fn plain(state: &State) -> String {
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

/// The validation in so many columns: the first and the last exit stay longest, the full model always.
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

fn percent(state: &State) -> u64 {
    100 * state.step / state.steps.max(1)
}

fn pace(state: &State) -> [String; 3] {
    [
        format!("{} left", duration(state.remaining)),
        format!("step {}/{}", grouped(state.step), grouped(state.steps)),
        format!("{} tokens/s", rate(state.tokens_per_second)),
    ]
}

fn learning(state: &State) -> [String; 4] {
    [
        format!("loss {}, smoothed {}", fixed(state.loss, 3), fixed(state.smoothed_loss, 3)),
        format!("gradient {}", fixed(state.grad_norm, 2)),
        format!("median {}", fixed(state.usual_norm, 2)),
        format!("rate {:.1e}", state.learning_rate),
    ]
}

fn memory(state: &State) -> Vec<String> {
    let memory = state.memory.iter();
    memory.map(|memory| format!("memory {}, peak {}", bytes(memory.resident), bytes(memory.peak))).collect()
}

fn skipped(state: &State) -> String {
    format!("{} skipped", grouped(state.skipped))
}

fn spikes(state: &State) -> String {
    format!("{} loss spike{}", grouped(state.loss_spikes), if state.loss_spikes == 1 { "" } else { "s" })
}

fn bar(done: u64, total: u64, cells: usize) -> String {
    let filled = (cells as u64 * done.min(total) / total.max(1)) as usize;
    "━".repeat(filled) + &"─".repeat(cells - filled)
}

/// As many of the facts, from the first on, as fit.
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

fn cut(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width.saturating_sub(1)).chain("…".chars().take(width)).collect()
}

#[cfg(test)]
mod tests;
