//! The states of a text's tokens at several depths: what exits say of a whole text begins with them.

use crate::{Error, Result};
use offramp_model::{Batch, Hidden, KvCache, Llama, Scratch, memory};
use std::ops::Range;
use std::sync::Arc;

/// Positions that go through the layers together where nobody waits for them.
const POSITIONS: usize = 128;

/// Runs a text, some positions at a time, and stops at depths on the way.
#[derive(Debug)]
pub(crate) struct DepthReader {
    model: Arc<Llama>,
    cache: KvCache,
    tokens: Vec<u32>,
    hidden: Hidden,
    done: usize, // tokens
}

/// What is called with the index of a depth and the states there, `[positions, hidden]`.
pub(crate) type AtDepth<'a> = dyn FnMut(usize, &Hidden, &mut Scratch) -> Result<()> + 'a;

impl DepthReader {
    /// For `tokens`, with memory of its own for keys and values.
    ///
    /// # Errors
    /// If there is no token, one is unknown, they are more than the context holds, or there is no memory.
    pub(crate) fn new(model: &Arc<Llama>, tokens: &[u32]) -> Result<Self> {
        let context = model.config().context();
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if tokens.len() > context {
            return Err(Error::ContextFull { tokens: tokens.len(), context });
        }
        tokens.iter().try_for_each(|&token| model.config().check_token(token))?;
        model.check_cache(tokens.len())?;
        let (model, cache, hidden) = (Arc::clone(model), model.new_cache(tokens.len()), model.new_hidden());
        Ok(Self { model, cache, tokens: tokens.to_vec(), hidden, done: 0 })
    }

    pub(crate) fn model(&self) -> &Arc<Llama> {
        &self.model
    }

    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The positions of the next step of at most `most`; empty at the end.
    pub(crate) fn ahead(&self, most: usize) -> Range<usize> {
        self.done..self.tokens.len().min(self.done + most)
    }

    /// Runs these positions to the last of the ascending `depths`; 0 is the embedding.
    ///
    /// # Errors
    /// If there is no memory, and what `at_depth` returns.
    pub(crate) fn step(
        &mut self,
        positions: Range<usize>,
        depths: &[usize],
        scratch: &mut Scratch,
        at_depth: &mut AtDepth<'_>,
    ) -> Result<()> {
        self.model.embed(&self.tokens[positions.clone()], &mut self.hidden)?;
        let mut reached = 0;
        for (index, &depth) in depths.iter().enumerate() {
            let mut batch = Batch::one(&mut self.cache);
            self.model.forward(reached..depth, &mut self.hidden, &mut batch, scratch)?;
            reached = depth;
            at_depth(index, &self.hidden, scratch)?;
        }
        self.done = positions.end;
        Ok(())
    }
}

/// Logits of every position at some exits, `[exits, tokens, vocab]`, in the order in which the exits are
/// given. `progress` gets the tokens done.
///
/// # Errors
/// If there is no token, one is unknown, they are more than the context holds, an exit does not exist, or
/// there is no memory.
pub fn logits_at_exits(
    model: &Arc<Llama>,
    tokens: &[u32],
    exit_layers: &[usize],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>> {
    exit_layers.iter().try_for_each(|&exit_layer| model.config().check_exit_layer(exit_layer))?;
    let (vocab, mut logits) = (model.config().vocab_size, Vec::new());
    let read = |hidden: &Hidden, scratch: &mut Scratch| {
        model.head(hidden, 0..hidden.tokens(), &mut logits, scratch);
        logits.clone()
    };
    whole(model, tokens, exit_layers, vocab, read, progress)
}

/// The states of every position: after the embedding, after each layer, and the last after the final norm,
/// as `output_hidden_states` of `transformers` has them, `[layers + 1, tokens, hidden]`. `progress` gets the
/// tokens done.
///
/// # Errors
/// As [`logits_at_exits`].
pub fn hidden_states(
    model: &Arc<Llama>,
    tokens: &[u32],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>> {
    let layers = model.config().num_hidden_layers;
    let depths: Vec<usize> = (0..=layers).collect();
    let mut place = 0;
    let read = |hidden: &Hidden, scratch: &mut Scratch| {
        place = (place + 1) % (layers + 1);
        match place {
            0 => model.final_norm(hidden, 0..hidden.tokens(), scratch).to_vec(),
            _ => hidden.as_slice().to_vec(),
        }
    };
    whole(model, tokens, &depths, model.config().hidden_size, read, progress)
}

/// Rows of `width` that `read` makes at each of the depths, `[depths, tokens, width]`.
fn whole(
    model: &Arc<Llama>,
    tokens: &[u32],
    depths: &[usize],
    width: usize,
    mut read: impl FnMut(&Hidden, &mut Scratch) -> Vec<f32>,
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<f32>> {
    let mut reader = DepthReader::new(model, tokens)?;
    let values = depths.len().saturating_mul(tokens.len()).saturating_mul(width);
    let what = format!("{} depths of {} tokens", depths.len(), tokens.len());
    memory::check(&what, (values as u64).saturating_mul(size_of::<f32>() as u64))?;
    let mut ascending = depths.to_vec();
    ascending.sort_unstable();
    ascending.dedup();
    let (mut out, mut scratch) = (vec![0.0; values], Scratch::new());
    loop {
        let positions = reader.ahead(POSITIONS);
        if positions.is_empty() {
            return Ok(out);
        }
        reader.step(positions.clone(), &ascending, &mut scratch, &mut |index, hidden, scratch| {
            let rows = read(hidden, scratch);
            let places = depths.iter().enumerate().filter(|&(_, depth)| *depth == ascending[index]);
            for (place, _) in places {
                let start = (place * tokens.len() + positions.start) * width;
                out[start..start + rows.len()].copy_from_slice(&rows);
            }
            Ok(())
        })?;
        progress(positions.end);
    }
}
