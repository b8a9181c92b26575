//! When a thread of the team is not asked: for a while after something else had its processor.
//!
//! A thread that is put off its processor with work in hand keeps its call waiting for milliseconds, and one
//! that waits awake keeps others from theirs. Who loses its processor for more than an eighth of the time
//! rests for as long as brings it down to that; who loses it again soon after, for twice as long as before.
//! So what is lost on a busy machine is a small part of the time, and a disturbance now and then costs
//! nothing else.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Time undisturbed or at rest, over the time that was lost.
const TIMES: u64 = 8;
/// The longest rest, in nanoseconds: so long goes by until a thread is asked on a machine that is quiet
/// again.
const LONGEST: u64 = 250_000_000;

/// Times in nanoseconds since the team began. The thread and its callers write it; who comes second changes
/// little.
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
        let calm = now - until;
        let length = match lost.saturating_mul(TIMES).saturating_sub(calm) {
            0 => 0,
            wanted => wanted.max(if calm < length { 2 * length } else { 0 }).min(LONGEST),
        };
        self.length.store(length, Relaxed);
        self.until.store(now + length, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_loses_an_eighth_or_less_does_not_rest() {
        let rest = Rest::default();
        assert!(rest.is_over(0));
        for now in [800, 1600, 3000] {
            rest.begin(now, 100);
            assert!(rest.is_over(now));
        }
    }

    #[test]
    fn a_rest_brings_what_is_lost_down_to_an_eighth() {
        let rest = Rest::default();
        rest.begin(1000, 100);
        rest.begin(1300, 100);
        assert!(!rest.is_over(1799) && rest.is_over(1800));
        rest.begin(1500, 1000);
        assert!(rest.is_over(1800), "who rests loses nothing");
    }

    #[test]
    fn who_is_disturbed_soon_again_rests_for_twice_as_long() {
        let rest = Rest::default();
        rest.begin(300, 100); // until 800
        rest.begin(1000, 100);
        assert!(!rest.is_over(1999) && rest.is_over(2000));
        rest.begin(2999, 1000); // after as long undisturbed, and more was lost
        assert!(!rest.is_over(2999 + 7000) && rest.is_over(2999 + 7001));
        rest.begin(10_000 + 800, 100);
        rest.begin(10_900, 100);
        assert!(rest.is_over(10_900 + 700), "what was is forgotten");
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
