//! The full model's choices and the exits' differences between the two largest logits, in one pass over the
//! text.

use super::TokenProgress;
use crate::Result;
use crate::perplexity::rows_at_once;
use offramp_engine::{argmax, gap};
use offramp_model::{Batch, Hidden, KvCache, Llama, Scratch};
use offramp_text::{TokenStream, Windows};

/// One window, and the full model's choice after each of its tokens.
pub(super) struct Passage {
    pub(super) tokens: Vec<u32>,
    pub(super) choices: Vec<u32>, // [tokens]
}

/// All windows.
pub(super) struct Reference {
    /// The windows that choose the threshold, and those that measure it. They alternate.
    pub(super) passages: [Vec<Passage>; 2],
    /// 0, and the exits' differences between the two largest logits in the first half; ascending and
    /// distinct.
    pub(super) thresholds: Vec<f32>,
}

/// Reads the first `windows` windows of `context` tokens, which must exist.
pub(super) fn read(
    model: &Llama,
    stream: &TokenStream,
    windows: u64,
    context: usize,
    exits: &[usize],
    tokens_done: &mut TokenProgress<'_>,
) -> Result<Reference> {
    let text = Windows::new(stream, context)?;
    let (hidden, cache, scratch) = (model.new_hidden(), model.new_cache(context), Scratch::new());
    let mut reader = WindowReader { model, hidden, cache, scratch, logits: Vec::new() };
    let (mut passages, mut thresholds) = ([Vec::new(), Vec::new()], vec![0.0]);
    for index in 0..windows {
        let (tokens, half) = (text.get(index)?.inputs().to_vec(), (index % 2) as usize);
        reader.begin(&tokens)?;
        let mut depth = 0;
        for &exit in exits.iter().filter(|_| half == 0) {
            reader.rise(depth..exit)?;
            thresholds.extend(reader.each(gap).into_iter().filter(|gap| gap.is_finite()));
            depth = exit;
        }
        reader.rise(depth..model.config().num_hidden_layers)?;
        tokens_done.more(tokens.len());
        passages[half].push(Passage { tokens, choices: reader.each(argmax) });
    }
    thresholds.sort_by(f32::total_cmp);
    thresholds.dedup();
    Ok(Reference { passages, thresholds })
}

/// A window between two layers.
struct WindowReader<'m> {
    model: &'m Llama,
    hidden: Hidden,
    cache: KvCache,
    scratch: Scratch,
    logits: Vec<f32>, // [rows, vocab]
}

impl WindowReader<'_> {
    fn begin(&mut self, tokens: &[u32]) -> Result<()> {
        self.cache.clear();
        Ok(self.model.embed(tokens, &mut self.hidden)?)
    }

    fn rise(&mut self, layers: std::ops::Range<usize>) -> Result<()> {
        let mut batch = Batch::one(&mut self.cache);
        Ok(self.model.forward(layers, &mut self.hidden, &mut batch, &mut self.scratch)?)
    }

    /// Applies `of` to the logits of every token at the current depth.
    fn each<T>(&mut self, of: impl Fn(&[f32]) -> T) -> Vec<T> {
        let (rows, vocab, tokens) =
            (rows_at_once(self.model), self.model.config().vocab_size, self.hidden.tokens());
        let mut all = Vec::with_capacity(tokens);
        for first in (0..tokens).step_by(rows) {
            let rows = first..(first + rows).min(tokens);
            self.model.head(&self.hidden, rows, &mut self.logits, &mut self.scratch);
            all.extend(self.logits.chunks_exact(vocab).map(&of));
        }
        all
    }
}
