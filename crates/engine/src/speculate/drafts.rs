//! What drafts of several texts in one step are expected to give.

use super::costs::CostTable;
use super::drafter::Drafter;

/// Who shares a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Company {
    /// Texts that this policy plans for together.
    pub(super) texts: usize,
    /// Other texts, of which each has a row.
    pub(super) others: usize,
}

/// What drafts in a step, and how many tokens for each of the texts.
pub(super) struct Drafts<'a> {
    pub(super) drafter: Drafter,
    pub(super) chances: &'a [f64],
    pub(super) longest: &'a [usize],
}

impl Company {
    pub(super) const ALONE: Self = Self { texts: 1, others: 0 };

    /// Rows of a step without drafts.
    pub(super) fn rows(&self) -> usize {
        self.texts + self.others
    }

    /// How much more of a plain token's bytes a call costs that only these texts share: plain tokens share
    /// theirs with the others, too.
    pub(super) fn spread(&self) -> f64 {
        self.rows() as f64 / self.texts as f64
    }
}

impl Drafts<'_> {
    /// The length at which a token comes soonest, and in how many seconds, if each is accepted with its
    /// text's chance.
    pub(super) fn soonest(&self, costs: &CostTable, depth: usize, company: Company) -> (usize, f64) {
        let mut best = (0, f64::INFINITY);
        let (mut accepted, mut rows) = (vec![1.0; self.chances.len()], company.rows());
        let mut tokens = rows as f64;
        let (drafter, above) = (self.drafter, self.drafter.above(depth));
        // Of its own layers' drafts, the last token has to follow the others; copies leave it where it is.
        let mut seconds = if drafter.apart { 0.0 } else { costs.drafts(drafter, rows) };
        for length in 1..=self.longest.iter().copied().max().unwrap_or(0) {
            let mut drafting = 0;
            for ((accepted, chance), longest) in accepted.iter_mut().zip(self.chances).zip(self.longest) {
                if length <= *longest {
                    *accepted *= chance;
                    tokens += *accepted;
                    drafting += 1;
                }
            }
            rows += drafting;
            seconds += costs.draft_head(drafting) + costs.drafts(drafter, drafting);
            let verify = costs.layers(above, rows) + costs.head(rows);
            let pace = (seconds + verify) / tokens;
            if pace < best.1 {
                best = (length, pace);
            }
        }
        best
    }
}
