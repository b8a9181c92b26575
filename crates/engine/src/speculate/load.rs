//! What a round would take beyond plain decoding, in tokens' worth of work.

use offramp_model::{DraftHead, Llama, Work};

/// The work of one layer, the head, and the head that drafts, for one token; attention is as much for every
/// token of either way, and left out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    layer: Work,
    head: Work,
    draft_head: Work,
    depth: usize,
}

/// The shape of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Layers that drafted.
    pub(crate) exit_layer: usize,
    /// Tokens that went through all layers.
    pub(crate) rows: usize,
    /// How often the head that drafts was asked.
    pub(crate) heads: usize,
    /// How many plain tokens share a call for each text that shares this round's.
    pub(crate) spread: f64,
}

impl Load {
    pub(crate) fn new(model: &Llama, draft_head: Option<&DraftHead>, depth: usize) -> Self {
        Self {
            layer: model.layer_work(),
            head: model.head_work(None, 1),
            draft_head: model.head_work(draft_head, 1),
            depth,
        }
    }

    /// What a round of that shape takes beyond `tokens` plain tokens, one token's work being 1.
    pub(crate) fn extra(&self, shape: Shape, tokens: usize) -> f64 {
        let Shape { exit_layer, rows, heads, spread } = shape;
        let [rows, heads, tokens] = [rows, heads, tokens].map(|count| count as f64);
        let (exit, depth) = (exit_layer as f64, self.depth as f64);
        let of = |what: fn(&Work) -> u64| {
            let [layer, head, draft] = [self.layer, self.head, self.draft_head].map(|w| what(&w) as f64);
            (layer, head, draft, depth * layer + head)
        };
        let (layer, head, draft, plain) = of(|work| work.bytes);
        let bytes = (rows * exit + depth - exit) * layer + head + heads * draft - tokens * plain;
        let (_, _, draft, plain_operations) = of(|work| work.operations);
        let operations = (rows - tokens) * plain_operations + heads * draft;
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
