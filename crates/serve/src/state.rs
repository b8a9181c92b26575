//! Whether the server is well, and whether it takes more work.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the threads know of each other.
#[derive(Debug)]
pub(crate) struct Shared {
    begin: Instant,
    /// When the present step began, in milliseconds after `begin`; `RESTS` between texts.
    step: AtomicU64,
    gone: AtomicBool,
    closing: AtomicBool,
    patience: Duration,
}

const RESTS: u64 = u64::MAX;

impl Shared {
    /// A step that takes longer than `patience` stands still.
    pub(crate) fn new(patience: Duration) -> Self {
        let (gone, closing) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { begin: Instant::now(), step: AtomicU64::new(RESTS), gone, closing, patience }
    }

    /// A step begins.
    pub(crate) fn steps(&self) {
        let now = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(RESTS - 1);
        self.step.store(now, Ordering::Release);
    }

    /// There is nothing to do.
    pub(crate) fn rests(&self) {
        self.step.store(RESTS, Ordering::Release);
    }

    pub(crate) fn worker_is_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    /// No more work is taken.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    /// Whether the process can go on at all.
    pub(crate) fn is_alive(&self) -> bool {
        !self.gone.load(Ordering::Acquire)
    }

    /// Why it would not answer a request now; `None` if it would.
    pub(crate) fn not_ready(&self) -> Option<String> {
        if !self.is_alive() {
            return Some("the model's thread has ended: start the server again".to_owned());
        }
        if self.is_closing() {
            return Some("the server is ending: ask another, or later".to_owned());
        }
        let step = self.step.load(Ordering::Acquire);
        let taken = self.begin.elapsed().saturating_sub(Duration::from_millis(step));
        let stands = step != RESTS && taken > self.patience;
        stands.then(|| format!("a step has taken {:.0} s and is not done", taken.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_unless_a_step_stands_still() {
        let shared = Shared::new(Duration::from_millis(20));
        assert_eq!(shared.not_ready(), None);
        shared.steps();
        assert_eq!(shared.not_ready(), None);
        std::thread::sleep(Duration::from_millis(40));
        assert!(shared.not_ready().is_some_and(|why| why.contains("not done")));
        shared.rests();
        assert_eq!(shared.not_ready(), None);
        shared.close();
        assert!(shared.not_ready().is_some() && shared.is_alive());
        shared.worker_is_gone();
        assert!(!shared.is_alive());
    }
}
