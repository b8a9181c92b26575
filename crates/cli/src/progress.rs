//! The progress of a long command on stderr: a bar in a terminal, elsewhere a line every few seconds. Neither
//! is shown in the first second.

use crate::number::duration;
use crate::pace::Pace;
use crate::screen::{Screen, bar, cut};
use std::time::Duration;

/// The time between two lines where stderr is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// The length of the bar in characters.
const BAR: usize = 16;

/// The progress of one job.
#[derive(Debug)]
pub(crate) struct ProgressBar {
    screen: Screen,
    total: u64,
    pace: Pace,
}

impl ProgressBar {
    /// A bar towards `total`, in the unit of the job.
    pub(crate) fn new(total: u64) -> Self {
        Self { screen: Screen::stderr(), total, pace: Pace::begin() }
    }

    /// Sets another total, for a job with several stages.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = total;
    }

    /// Shows that `done` is done. `message` is called only if the line is due.
    pub(crate) fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        let terminal = self.screen.is_terminal();
        if !self.pace.is_due(terminal, BETWEEN_LINES) {
            return;
        }
        self.pace.show();
        let share = done.min(self.total) as f64 / self.total.max(1) as f64;
        let line = format!("{:>3.0}%  {}", (100.0 * share).floor(), message());
        let bar = bar(done, self.total, BAR);
        match terminal {
            true => self.screen.draw(vec![cut(&format!("{bar} {line}"), self.screen.width())]),
            false => self.screen.say(&line),
        }
    }

    /// Shows `done` of `total`. `message` gets the time left, in words.
    pub(crate) fn report(&mut self, done: u64, total: u64, message: impl FnOnce(&str) -> String) {
        self.set_total(total);
        let remaining = self.remaining(done, total);
        self.set(done, || message(&remaining));
    }

    /// The time left at the speed so far, in words.
    pub(crate) fn remaining(&self, done: u64, total: u64) -> String {
        duration(self.pace.remaining(done, total))
    }
}

impl Drop for ProgressBar {
    fn drop(&mut self) {
        if self.screen.is_terminal() && self.pace.has_shown() {
            self.screen.draw(Vec::new());
        }
    }
}

/// A callback for a job that counts. It shows "timed 3 of 24 samples, 12s left"; dropping it clears the line.
pub(crate) fn counted(verb: &str, things: &str) -> impl FnMut(usize, usize) {
    let mut progress = ProgressBar::new(1);
    move |done, total| {
        let message = |left: &str| format!("{verb} {done} of {total} {things}, {left} left");
        progress.report(done as u64, total as u64, message);
    }
}
