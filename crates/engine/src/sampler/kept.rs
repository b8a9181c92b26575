//! Which tokens may be drawn: top-k, then top-p, then min-p, as in `transformers`.

use super::{Sampler, SamplingOptions};
use offramp_kernels::active;

impl Sampler {
    /// Leaves in `candidates` what the options keep, and in `chances` the softmax of all logits.
    pub(super) fn keep_most_likely(&mut self) {
        let SamplingOptions { top_k, top_p, min_p, .. } = self.options;
        self.chances.clear();
        self.chances.extend_from_slice(&self.logits);
        (active().softmax)(&mut self.chances);
        self.candidates.clear();
        self.candidates.extend(0..self.logits.len() as u32);
        if top_k > 0 {
            self.keep_top_k(top_k);
        }
        if top_p < 1.0 {
            self.keep_top_p(top_p);
        }
        if min_p > 0.0 {
            // The largest logit is 0, and top-k and top-p always keep it.
            let (logits, least) = (&self.logits, f64::from(min_p).ln());
            self.candidates.retain(|&id| f64::from(logits[id as usize]) >= least);
        }
    }

    fn keep_top_k(&mut self, top_k: usize) {
        if top_k < self.candidates.len() {
            let logits = &self.logits;
            self.candidates.select_nth_unstable_by(top_k, |a, b| by_logit(logits, *a, *b));
            self.candidates.truncate(top_k);
        }
    }

    /// Keeps the fewest of the likeliest candidates whose chances reach this share of all of theirs.
    fn keep_top_p(&mut self, top_p: f32) {
        let Self { logits, chances, candidates, .. } = self;
        let chance = |id: u32| f64::from(chances[id as usize]);
        let all: f64 = candidates.iter().map(|&id| chance(id)).sum();
        let enough = f64::from(top_p) * all;
        // Candidates below this sum to half of what may be missing, so that those above it are enough; few
        // of a large vocabulary are above it, and only they are sorted.
        let least = 0.5 * (all - enough) / candidates.len() as f64;
        candidates.retain(|&id| chance(id) >= least);
        candidates.sort_unstable_by(|a, b| by_logit(logits, *a, *b));
        let mut sum = 0.0;
        // The token that crosses the line is kept: at least one always is.
        let kept = candidates.iter().take_while(|id| {
            let before = sum;
            sum += chance(**id);
            before < enough
        });
        let kept = kept.count();
        candidates.truncate(kept.max(1));
    }
}

/// The likelier first, and equal ones in order of their ids: the choice is one and the same everywhere.
fn by_logit(logits: &[f32], a: u32, b: u32) -> std::cmp::Ordering {
    logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
}
