//! When a display of progress is due: often in a terminal, which draws in place, and seldom elsewhere, where
//! every line stays.

use std::time::{Duration, Instant};

/// A command that ends sooner shows no progress in a terminal.
const QUIET: Duration = Duration::from_secs(1);
/// The time between two drawings in a terminal.
const BETWEEN_DRAWINGS: Duration = Duration::from_millis(100);

/// The times of one display.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    shown: Option<Instant>,
}

impl Pace {
    /// Begins now.
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), shown: None }
    }

    /// The time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether anything was shown.
    pub(crate) fn has_shown(&self) -> bool {
        self.shown.is_some()
    }

    /// Whether it is time to show something again. Without a terminal, `between_lines` must have passed.
    pub(crate) fn is_due(&self, terminal: bool, between_lines: Duration) -> bool {
        let pause = match (terminal, self.shown) {
            (true, None) => QUIET,
            (true, Some(_)) => BETWEEN_DRAWINGS,
            (false, _) => between_lines,
        };
        self.shown.unwrap_or(self.began).elapsed() > pause
    }

    /// Something is shown now.
    pub(crate) fn show(&mut self) {
        self.shown = Some(Instant::now());
    }

    /// The time left at the speed so far.
    pub(crate) fn remaining(&self, done: u64, total: u64) -> Duration {
        self.elapsed().mul_f64(total.saturating_sub(done) as f64 / done.max(1) as f64)
    }
}
