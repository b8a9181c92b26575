//! What a round would take beyond plain decoding, in tokens' worth of work.

use super::drafter::{Copies, Drafter};
use offramp_model::{Llama, Work};

/// The work of one layer, a copy of one, the head, and the head that drafts, for one token; attention is as
/// much for every token of either way, and left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    layer: Work,
    copy: Work,
    head: Work,
    draft_head: Work,
    depth: usize,
}

/// The shape of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Layers that drafted.
    pub(crate) drafter: Drafter,
    /// Tokens that went through all layers.
    pub(crate) rows: usize,
    /// How often the head that drafts was asked.
    pub(crate) heads: usize,
    /// How many plain tokens share a call for each text that shares this round's.
    pub(crate) spread: f64,
}

impl Load {
    pub(crate) fn new(model: &Llama, copies: Copies<'_>, depth: usize) -> Self {
        Self {
            layer: model.layer_work(),
            copy: copies.model().map_or_else(Work::default, Llama::layer_work),
            head: model.head_work(None, 1),
            draft_head: model.head_work(copies.head, 1),
            depth,
        }
    }

    /// What a round of that shape takes beyond `tokens` plain tokens, one token's work being 1.
    pub(crate) fn extra(&self, shape: Shape, tokens: usize) -> f64 {
        let Shape { drafter, rows, heads, spread } = shape;
        let [rows, heads, tokens] = [rows, heads, tokens].map(|count| count as f64);
        let (exit, above) = (drafter.exit_layer as f64, drafter.above(self.depth) as f64);
        let of = |what: fn(&Work) -> u64| {
            let [layer, copy, head, draft] =
                [self.layer, self.copy, self.head, self.draft_head].map(|work| what(&work) as f64);
            // Own layers take every row once, and copies each that a token is drafted from.
            let (drafts, copies) =
                if drafter.apart { (0.0, heads * exit * copy) } else { (exit * layer, 0.0) };
            (drafts, above * layer + head, copies + heads * draft, self.depth as f64 * layer + head)
        };
        let (drafts, verify, apart, plain) = of(|work| work.bytes);
        let bytes = rows * drafts + verify + apart - tokens * plain;
        let (_, _, apart, plain_operations) = of(|work| work.operations);
        let operations = (rows - tokens) * plain_operations + apart;
        (spread * bytes / plain).max(operations / plain_operations).max(0.0)
    }

    /// What a probe of `rows` tokens takes.
    pub(crate) fn probe(&self, rows: usize) -> f64 {
        let mut plain = self.head;
        (0..self.depth).for_each(|_| plain += self.layer);
        let work = Work { operations: self.draft_head.operations * rows as u64, ..self.draft_head };
        work.share(&plain)
    }
}
