//! When a thread of the team is not asked: for a while after something else had its processor.
//!
//! A thread that is put off its processor with work in hand keeps its call waiting for milliseconds, and one that
//! waits awake keeps others from theirs. Who lost its processor rests for several times as long; who loses it again
//! soon after, for twice as long as before. So what is lost on a busy machine is a small part of the time, and a
//! short disturbance costs little.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A rest, over the time that was lost.
const TIMES: u64 = 8;
/// The longest rest, in nanoseconds: so long goes by until a thread is asked on a machine that is quiet again.
const LONGEST: u64 = 250_000_000;

/// Times in nanoseconds since the team began. The thread and its callers write it; who comes second changes little.
#[derive(Debug, Default)]
pub(super) struct Rest {
    until: AtomicU64,
    length: AtomicU64,
}

impl Rest {
    /// Whether the thread may be asked.
    pub(super) fn is_over(&self, now: u64) -> bool {
        now >= self.until.load(Relaxed)
    }

    /// The thread had no processor for `lost`.
    pub(super) fn begin(&self, now: u64, lost: u64) {
        let (until, length) = (self.until.load(Relaxed), self.length.load(Relaxed));
        if now < until {
            return; // another has seen the same
        }
        let again = if now - until < length { 2 * length } else { 0 };
        let length = lost.saturating_mul(TIMES).max(again).min(LONGEST);
        self.length.store(length, Relaxed);
        self.until.store(now + length, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_eight_times_what_was_lost() {
        let rest = Rest::default();
        assert!(rest.is_over(0));
        rest.begin(1000, 100);
        assert!(!rest.is_over(1799) && rest.is_over(1800));
        rest.begin(1500, 1000);
        assert!(rest.is_over(1800), "who rests loses nothing");
    }

    #[test]
    fn who_is_disturbed_soon_again_rests_for_twice_as_long() {
        let rest = Rest::default();
        rest.begin(1000, 100); // until 1800
        rest.begin(2599, 100);
        assert!(!rest.is_over(2599 + 1599) && rest.is_over(2599 + 1600));
        rest.begin(4199 + 1600, 100); // after as long undisturbed
        assert!(rest.is_over(5799 + 800), "what was is forgotten");
    }

    #[test]
    fn no_rest_is_longer_than_the_longest() {
        let rest = Rest::default();
        let mut now = 0;
        for lost in [LONGEST, 1, u64::MAX, 1] {
            rest.begin(now, lost);
            assert!(!rest.is_over(now + LONGEST - 1) && rest.is_over(now + LONGEST));
            now += LONGEST;
        }
    }
}
