//! How far a long command has come, on stderr: a bar in a terminal, else a line now and then, and neither in
//! the first second.

use crate::number::duration;
use crate::output::note;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

/// What is done sooner needs no progress.
pub(crate) const QUIET: Duration = Duration::from_secs(1);
/// Between two lines where stderr is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// One job under way.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    began: Instant,
    shown: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Progress towards `total` of whatever is counted.
    pub(crate) fn new(total: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
        let style = ProgressStyle::with_template("{bar:16} {percent:>3}%  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━━─"));
        Self { bar, began: Instant::now(), shown: None, terminal: io::stderr().is_terminal() }
    }

    /// Another goal, as a job that has several stages has.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.bar.set_length(total);
    }

    /// So much is done. `message` is only made when it is shown.
    pub(crate) fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        let now = Instant::now();
        if self.terminal {
            if self.shown.is_none() && now - self.began > QUIET {
                self.bar.set_draw_target(ProgressDrawTarget::stderr());
                self.shown = Some(now);
            }
            self.bar.set_message(message());
            self.bar.set_position(done);
            return;
        }
        if now - self.shown.unwrap_or(self.began) > BETWEEN_LINES {
            let percent = 100 * done / self.bar.length().unwrap_or(0).max(1);
            note(&format!("{percent:>3}%  {}", message()));
            self.shown = Some(now);
        }
    }

    /// How long what is left takes at the pace so far, in words.
    pub(crate) fn remaining(&self, done: u64, total: u64) -> String {
        duration(remaining(self.began.elapsed(), done, total))
    }
}

/// How long what is left takes at the pace so far.
pub(crate) fn remaining(elapsed: Duration, done: u64, total: u64) -> Duration {
    elapsed.mul_f64(total.saturating_sub(done) as f64 / done.max(1) as f64)
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
