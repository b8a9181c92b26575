//! What a download shows on stderr: a bar with the time left, and a line for each wait.

use crate::number::bytes;
use crate::output::note;
use crate::progress::ProgressBar;
use offramp_hub::Event;
use std::sync::{Mutex, PoisonError};

/// The state of the bar, which all threads of a download share.
struct Shown {
    bar: Option<ProgressBar>,
    done: u64,
    total: u64,
}

/// Calls `work` with an observer that shows what it hears.
pub(crate) fn shown<T>(name: &str, work: impl FnOnce(offramp_hub::Observer<'_>) -> T) -> T {
    let shown = Mutex::new(Shown { bar: None, done: 0, total: 0 });
    work(&|event| shown.lock().unwrap_or_else(PoisonError::into_inner).hear(name, event))
}

impl Shown {
    fn hear(&mut self, name: &str, event: Event<'_>) {
        match event {
            // A second stage, whose files follow the first.
            Event::Begins { bytes, .. } => self.total += bytes,
            Event::Here(bytes) => self.total = self.total.saturating_sub(bytes),
            Event::Received(bytes) => self.done += bytes,
            Event::Discarded(bytes) => {
                let came = bytes.min(self.done);
                self.done -= came;
                self.total += bytes - came;
            }
            Event::Note(line) => {
                self.bar = None; // the line stays, and the bar comes back below it
                note(line);
            }
        }
        let (done, total) = (self.done, self.total);
        let message = |left: &str| format!("{name}: {} of {}, {left} left", bytes(done), bytes(total));
        self.bar.get_or_insert_with(|| ProgressBar::new(total)).report(done, total, message);
    }
}
