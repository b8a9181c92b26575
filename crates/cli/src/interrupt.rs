//! A Ctrl-C that stops an answer instead of the program.

use std::sync::atomic::{AtomicU8, Ordering};

const IDLE: u8 = 0;
const ANSWERING: u8 = 1;
const STOPPED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// While this value exists, the first Ctrl-C stops the answer. The second ends the program, as at any other
/// time.
pub(crate) struct Answering(());

impl Answering {
    pub(crate) fn begin() -> Self {
        STATE.store(ANSWERING, Ordering::Release);
        Self(())
    }

    /// Whether the answer should stop.
    pub(crate) fn stopped(&self) -> bool {
        STATE.load(Ordering::Acquire) == STOPPED
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::Release);
    }
}

/// Stops the current answer; `false` if there is none to stop.
pub(crate) fn take() -> bool {
    STATE.compare_exchange(ANSWERING, STOPPED, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_takes_one_ctrl_c() {
        assert!(!take(), "nothing is answered");
        let answering = Answering::begin();
        assert!(!answering.stopped());
        assert!(take() && answering.stopped());
        assert!(!take(), "the second one ends the program");
        drop(answering);
        assert!(!take() && !Answering::begin().stopped());
    }
}
