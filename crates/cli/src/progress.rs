//! How far a long command has come, on stderr: a bar in a terminal, else a line now and then, and neither in
//! the first second.

use crate::number::duration;
use crate::screen::Screen;
use std::time::{Duration, Instant};

/// What is done sooner needs no progress.
pub(crate) const QUIET: Duration = Duration::from_secs(1);
/// Between two drawings of the bar.
const BETWEEN_DRAWINGS: Duration = Duration::from_millis(100);
/// Between two lines where stderr is no terminal.
const BETWEEN_LINES: Duration = Duration::from_secs(10);
/// Characters of the bar.
const BAR: usize = 16;

/// One job under way.
#[derive(Debug)]
pub(crate) struct Progress {
    screen: Screen,
    total: u64,
    began: Instant,
    shown: Option<Instant>,
}

impl Progress {
    /// Progress towards `total` of whatever is counted.
    pub(crate) fn new(total: u64) -> Self {
        Self { screen: Screen::stderr(), total, began: Instant::now(), shown: None }
    }

    /// Another goal, as a job that has several stages has.
    pub(crate) fn set_total(&mut self, total: u64) {
        self.total = total;
    }

    /// So much is done. `message` is only made when it is shown.
    pub(crate) fn set(&mut self, done: u64, message: impl FnOnce() -> String) {
        let terminal = self.screen.is_terminal();
        let pause = match (terminal, self.shown) {
            (true, None) => QUIET,
            (true, Some(_)) => BETWEEN_DRAWINGS,
            (false, _) => BETWEEN_LINES,
        };
        let now = Instant::now();
        if now - self.shown.unwrap_or(self.began) <= pause {
            return;
        }
        self.shown = Some(now);
        let share = done.min(self.total) as f64 / self.total.max(1) as f64;
        let line = format!("{:>3.0}%  {}", (100.0 * share).floor(), message());
        match terminal {
            true => self.screen.draw(vec![cut(&format!("{} {line}", bar(share)), self.screen.width())]),
            false => self.screen.say(&line),
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

/// A bar of which so much is drawn thick.
fn bar(share: f64) -> String {
    let thick = (share * BAR as f64) as usize;
    "━".repeat(thick) + &"─".repeat(BAR - thick)
}

/// As much of a line as has room.
fn cut(line: &str, width: usize) -> String {
    line.chars().take(width).collect()
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.screen.is_terminal() && self.shown.is_some() {
            self.screen.draw(Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_whatever_is_done() {
        assert_eq!(bar(0.0), "────────────────");
        assert_eq!(bar(0.5), "━━━━━━━━────────");
        assert_eq!(bar(1.0), "━━━━━━━━━━━━━━━━");
        assert_eq!(cut("━━─ 50%  half", 7), "━━─ 50%");
    }
}
