//! Where a call and one thread of the team meet: a single word, so that each step of either side is final.

use std::sync::atomic::{AtomicU8, Ordering};

/// The thread waits awake, or is on its way out of its sleep.
const AWAKE: u8 = 0;
/// The thread sleeps until it is woken.
const ASLEEP: u8 = 1;
/// A call wants the thread, which has not come yet.
const ASKED: u8 = 2;
/// The thread works for a call.
const AT_WORK: u8 = 3;

#[derive(Debug)]
pub(super) struct Seat(AtomicU8);

impl Seat {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// The call wants the thread, which sees what was written before. Returns whether it sleeps, and must be
    /// woken.
    #[must_use]
    pub(super) fn ask(&self) -> bool {
        self.0.swap(ASKED, Ordering::AcqRel) == ASLEEP
    }

    /// The call has no more work: who has not come need not come.
    pub(super) fn withdraw(&self) {
        if self.0.load(Ordering::Relaxed) == ASKED {
            // Who sleeps was woken when it was asked.
            let _ = self.step(ASKED, AWAKE);
        }
    }

    /// Whether the thread came and is not done. What it wrote is seen by whoever hears that it is.
    pub(super) fn is_at_work(&self) -> bool {
        self.0.load(Ordering::Acquire) == AT_WORK
    }

    /// The thread comes, if it is asked.
    pub(super) fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ASKED && self.step(ASKED, AT_WORK)
    }

    /// The thread is done, and waits awake.
    pub(super) fn leave(&self) {
        self.0.store(AWAKE, Ordering::Release);
    }

    /// The thread goes to sleep, unless it is asked.
    pub(super) fn sleep(&self) -> bool {
        self.step(AWAKE, ASLEEP)
    }

    /// Whether nobody has asked the sleeping thread.
    pub(super) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::Relaxed) == ASLEEP
    }

    fn step(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Seat;

    #[test]
    fn who_is_asked_comes_once_and_is_waited_for() {
        let seat = Seat::new();
        assert!(!seat.take(), "nobody asked");
        assert!(!seat.ask(), "it is awake");
        assert!(seat.take() && seat.is_at_work());
        assert!(!seat.take(), "it has come");
        seat.withdraw();
        assert!(seat.is_at_work(), "who works is not sent away");
        seat.leave();
        assert!(!seat.is_at_work() && !seat.take());
    }

    #[test]
    fn who_is_not_needed_any_more_does_not_come() {
        let seat = Seat::new();
        assert!(!seat.ask());
        seat.withdraw();
        assert!(!seat.is_at_work() && !seat.take());
    }

    #[test]
    fn a_sleeper_is_woken_and_who_is_asked_does_not_fall_asleep() {
        let seat = Seat::new();
        assert!(seat.sleep() && seat.is_asleep());
        assert!(seat.ask(), "it must be woken");
        assert!(!seat.is_asleep(), "so that it does not sleep on");
        assert!(!seat.sleep(), "it is asked");
        seat.withdraw();
        assert!(!seat.is_asleep(), "it was woken, and may find that it is too late");
        assert!(!seat.ask(), "and needs no other call");
        assert!(seat.take());
    }
}
