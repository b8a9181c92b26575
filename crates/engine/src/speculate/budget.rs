//! How much speculation may cost while nothing comes of it.
//!
//! The unit is a plain token's work, in bytes or operations, whichever the larger share. What is granted over
//! the first 256 tokens sums to 2 % of theirs, and from then on to less; beyond it, only tokens that agreed
//! earn.

/// Granted at the start, and with each token: for probes, and for drafts that are rejected.
const PROBES: (f64, f64) = (0.9, 0.01);
const DRAFTS: (f64, f64) = (0.38, 0.005);
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
}

impl Default for Budget {
    fn default() -> Self {
        Self { probes: PROBES.0, drafts: DRAFTS.0 }
    }
}

impl Budget {
    /// For probes.
    pub(crate) fn probes(&self) -> f64 {
        self.probes
    }

    /// For drafts of which nothing may be accepted.
    pub(crate) fn drafts(&self) -> f64 {
        self.drafts
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
        self.probes = grow(self.probes, PROBES.1, EARNED.0, MOST.0);
        self.drafts = grow(self.drafts, DRAFTS.1, EARNED.1, MOST.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_success_it_is_two_in_a_hundred() {
        let mut budget = Budget::default();
        (0..256).for_each(|_| budget.earn(1, 0));
        let granted = budget.probes() + budget.drafts();
        assert!((granted - 0.02 * 256.0).abs() < 1e-9, "{granted}");
    }

    #[test]
    fn success_earns_and_nothing_is_hoarded() {
        let mut budget = Budget::default();
        budget.earn(4, 3);
        assert!(budget.drafts() > 12.0);
        (0..1000).for_each(|_| budget.earn(4, 3));
        assert_eq!((budget.probes(), budget.drafts()), MOST);
    }
}
