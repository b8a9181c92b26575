//! Which tokens may be drawn: top-k, then top-p, then min-p, as in `transformers`.

use super::{Sampler, SamplingOptions};
use crate::score::largest;
use offramp_kernels::active;

/// Tokens of which top-p takes its share at first, and how many times as many if that is not enough.
const FEW: usize = 64;
const MORE: usize = 8;

impl Sampler {
    /// Leaves in `candidates` what the options keep, and in `chances` the softmax of all logits.
    pub(super) fn keep_most_likely(&mut self) {
        let SamplingOptions { top_k, top_p, min_p, .. } = self.options;
        self.chances.clear();
        self.chances.extend_from_slice(&self.logits);
        (active().softmax)(&mut self.chances);
        let most = if top_k > 0 { top_k.min(self.logits.len()) } else { self.logits.len() };
        self.take_top(most);
        if top_p < 1.0 {
            self.keep_top_p(top_p, most);
        }
        if min_p > 0.0 {
            // The largest logit is 0, and top-k and top-p always keep it.
            let (logits, least) = (&self.logits, f64::from(min_p).ln());
            self.candidates.retain(|&id| f64::from(logits[id as usize]) >= least);
        }
    }

    /// The `most` likeliest candidates, in no order.
    fn take_top(&mut self, most: usize) {
        let Self { logits, candidates, .. } = self;
        candidates.clear();
        if most >= logits.len() {
            candidates.extend(0..logits.len() as u32);
            return;
        }
        // The largest logit of each stretch is its peak. At least `most` logits reach the peak that comes
        // `most`-th, and few more do.
        let stretch = (logits.len() / (4 * most)).max(1);
        let mut peaks: Vec<f32> = logits.chunks(stretch).map(largest).collect();
        let (_, least, _) = peaks.select_nth_unstable_by(most - 1, |a, b| b.total_cmp(a));
        let above = |(id, logit): (usize, &f32)| (logit >= least).then_some(id as u32);
        candidates.extend(logits.iter().enumerate().filter_map(above));
        if most < candidates.len() {
            candidates.select_nth_unstable_by(most, |a, b| by_logit(logits, *a, *b));
            candidates.truncate(most);
        }
    }

    /// Keeps the fewest of the likeliest candidates, of which there are `most`, whose chances reach this
    /// share of all of theirs.
    fn keep_top_p(&mut self, top_p: f32, most: usize) {
        let chance = |chances: &[f32], id: u32| f64::from(chances[id as usize]);
        let all: f64 = self.candidates.iter().map(|&id| chance(&self.chances, id)).sum();
        let enough = f64::from(top_p) * all;
        // Mostly a few are enough, and only so many are sorted.
        let mut some = FEW;
        loop {
            self.take_top(some.min(most));
            let Self { logits, chances, candidates, .. } = self;
            candidates.sort_unstable_by(|a, b| by_logit(logits, *a, *b));
            let mut sum = 0.0;
            // The token that crosses the line is kept: at least one always is.
            let kept = candidates.iter().take_while(|id| {
                let before = sum;
                sum += chance(chances, **id);
                before < enough
            });
            let kept = kept.count().max(1);
            if kept < candidates.len() || some >= most {
                candidates.truncate(kept);
                return;
            }
            some *= MORE;
        }
    }
}

/// The likelier first, and equal ones in order of their ids: the choice is one and the same everywhere.
fn by_logit(logits: &[f32], a: u32, b: u32) -> std::cmp::Ordering {
    logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b))
}
