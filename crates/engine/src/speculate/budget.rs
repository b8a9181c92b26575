//! How much speculation may cost while nothing comes of it.
//!
//! The unit is a plain token's work, in bytes or operations, whichever the larger share. What is granted over
//! the first 256 tokens sums to 2 % of theirs, and from then on to less; beyond it, only tokens that agreed
//! earn.

/// What is granted before anything has agreed.
#[derive(Clone, Copy, Debug)]
struct Grant {
    /// At the start.
    at_once: f64,
    /// With each token.
    each: f64,
}

/// For probes, and for drafts that are rejected, where exits are first seen in passing.
const PROBES: Grant = Grant { at_once: 0.9, each: 0.01 };
const DRAFTS: Grant = Grant { at_once: 0.38, each: 0.005 };
/// A copy of all layers is mostly right, and has to be tried to be known. A draft of one token that is wrong
/// is twice a token's operations, and two may be.
const PROBES_BESIDE_COPIES: Grant = Grant { at_once: 0.4, each: 0.0025 };
const DRAFTS_BY_COPIES: Grant = Grant { at_once: 4.07, each: 0.0 };
/// No more is risked at a time before anything has agreed.
const TRIAL: f64 = 2.03;
/// What a token that agreed earns: with one in four of them accepted, drafts of one token still just pay on
/// machines whose limit is the memory, and so many are let through.
const EARNED: (f64, f64) = (0.1, 4.0);
/// No more is put by for bad times.
const MOST: (f64, f64) = (1.0, 32.0);

/// What may still be spent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    probes: f64,
    drafts: f64,
    agreed: bool,
    granted: [Grant; 2], // for probes and drafts
}

impl Budget {
    /// What there is at the start, where copies of the layers may draft or not.
    pub(crate) fn new(copies: bool) -> Self {
        let granted = if copies { [PROBES_BESIDE_COPIES, DRAFTS_BY_COPIES] } else { [PROBES, DRAFTS] };
        Self { probes: granted[0].at_once, drafts: granted[1].at_once, agreed: false, granted }
    }

    /// For probes.
    pub(crate) fn probes(&self) -> f64 {
        self.probes
    }

    /// For drafts of which nothing may be accepted.
    pub(crate) fn drafts(&self) -> f64 {
        if self.agreed { self.drafts } else { self.drafts.min(TRIAL) }
    }

    pub(crate) fn spend_on_probes(&mut self, work: f64) {
        self.probes -= work;
    }

    pub(crate) fn spend_on_drafts(&mut self, work: f64) {
        self.drafts -= work;
    }

    /// A round is over that gave `tokens` tokens, and in which `agreed` choices of an exit were the full
    /// model's.
    pub(crate) fn earn(&mut self, tokens: usize, agreed: usize) {
        let grow = |held: f64, each: f64, earned: f64, most: f64| {
            let granted = held + tokens as f64 * each;
            if agreed == 0 { granted } else { (granted + agreed as f64 * earned).min(most) }
        };
        self.agreed |= agreed > 0;
        let [probes, drafts] = self.granted;
        self.probes = grow(self.probes, probes.each, EARNED.0, MOST.0);
        self.drafts = grow(self.drafts, drafts.each, EARNED.1, MOST.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_success_it_is_two_in_a_hundred() {
        for copies in [false, true] {
            let mut budget = Budget::new(copies);
            (0..256).for_each(|_| budget.earn(1, 0));
            let granted = budget.probes + budget.drafts;
            assert!(granted <= 0.02 * 256.0 + 1e-9 && granted > 0.0199 * 256.0, "{granted}");
        }
    }

    #[test]
    fn success_earns_and_nothing_is_hoarded() {
        let mut budget = Budget::new(false);
        budget.earn(4, 3);
        assert!(budget.drafts() > 12.0);
        (0..1000).for_each(|_| budget.earn(4, 3));
        assert_eq!((budget.probes(), budget.drafts()), MOST);
    }
}
