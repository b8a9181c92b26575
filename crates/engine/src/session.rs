//! One text in the making: its tokens, its cache, and the depth at which it runs.

mod confident;
mod draft;

use crate::{Error, Result};
use confident::Confident;
use draft::Ahead;
use offramp_model::{Hidden, KvCache, Llama, Work};

/// A sequence of tokens over a model, continued by [`Session::feed`].
///
/// The exit layer may change at any time. Moving it down costs nothing; after moving it up, the next
/// `feed` runs again whatever the deeper layers have not seen, so that the logits are those of a
/// session that had stood at that depth from the start, bit for bit. With a
/// [`ConfidenceExit`](crate::ConfidenceExit) they are not: see [`Session::set_confidence_exit`].
#[derive(Debug)]
pub struct Session<'m> {
    model: &'m Llama,
    exit_layer: usize,
    tokens: Vec<u32>,
    cache: KvCache,
    hidden: Hidden,
    logits: Vec<f32>, // [vocab]
    ahead: Ahead,
    confident: Option<Confident>,
    work: Work,
}

impl<'m> Session<'m> {
    /// An empty session at full depth, for up to `capacity` tokens.
    ///
    /// # Errors
    /// If the model's context is shorter than that, or the memory has no room for so many.
    pub fn new(model: &'m Llama, capacity: usize) -> Result<Self> {
        let config = model.config();
        if capacity > config.max_position_embeddings {
            let context = config.max_position_embeddings;
            return Err(Error::ContextFull { tokens: capacity, context });
        }
        model.check_cache(capacity)?;
        Ok(Self {
            model,
            exit_layer: config.num_hidden_layers,
            tokens: Vec::new(),
            cache: model.new_cache(capacity),
            hidden: model.new_hidden(),
            logits: Vec::new(),
            ahead: Ahead::new(model.new_hidden()),
            confident: None,
            work: Work::default(),
        })
    }

    /// The model it runs.
    pub fn model(&self) -> &'m Llama {
        self.model
    }

    /// Layers that a token takes.
    pub fn exit_layer(&self) -> usize {
        self.exit_layer
    }

    /// Leaves after `exit_layer` layers from the next token on, or before where a confidence exit is set; then tokens
    /// that left are run again at the new depth with the next.
    ///
    /// # Errors
    /// If it is not `1..=num_hidden_layers`, or not above all of the confidence exits.
    pub fn set_exit_layer(&mut self, exit_layer: usize) -> Result<()> {
        self.model.config().check_exit_layer(exit_layer)?;
        if exit_layer != self.exit_layer {
            self.confidence_exit().map_or(Ok(()), |exit| exit.check(exit_layer))?;
            self.recall();
            self.exit_layer = exit_layer;
        }
        Ok(())
    }

    /// The tokens so far.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens that fit.
    pub fn capacity(&self) -> usize {
        self.cache.capacity()
    }

    /// Appends `tokens`, runs what has not been run at this depth, and returns the logits after the
    /// last, `[vocab]`. With a confidence exit set, a token that comes alone may leave there, and the logits are those
    /// of where it left; others run at full depth.
    ///
    /// # Errors
    /// If there is no token at all, one is not in the vocabulary, they do not fit, or there is no memory for what they
    /// leave in the cache; then the session holds the tokens that it held, and what follows them is the same.
    pub fn feed(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        match tokens {
            &[token] if self.may_leave() => self.decode(token),
            _ => self.run(tokens, 1),
        }
    }

    /// As [`Session::feed`], but returns the logits after each of `tokens`, `[tokens, vocab]`: what they are
    /// verified by. None of them leaves at a confidence exit.
    ///
    /// # Errors
    /// As [`Session::feed`]; here too if `tokens` is empty.
    pub fn feed_each(&mut self, tokens: &[u32]) -> Result<&[f32]> {
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        self.run(tokens, tokens.len())
    }

    /// Appends `tokens`; the logits after the last `rows`.
    fn run(&mut self, tokens: &[u32], rows: usize) -> Result<&[f32]> {
        let (before, after) = (self.tokens.len(), self.tokens.len() + tokens.len());
        if after > self.capacity() {
            return Err(Error::ContextFull { tokens: after, context: self.capacity() });
        }
        if after == 0 {
            return Err(Error::NoTokens);
        }
        // Those whose logits are read always run, even if they are known at this depth.
        self.cut(after - rows);
        self.fill_all()?;
        let known = (0..self.exit_layer).map(|layer| self.cache.len(layer)).min().unwrap_or(0);
        self.tokens.extend_from_slice(tokens);
        if let Err(error) = self.run_from(known) {
            self.tokens.truncate(before);
            return Err(error);
        }
        let all = self.hidden.tokens();
        self.model.head(&mut self.hidden, all - rows..all, &mut self.logits);
        self.work += self.model.forward_work(0..self.exit_layer, all, known);
        self.work += self.model.head_work(None, rows);
        if let Some(confident) = &mut self.confident {
            confident.left_at = self.exit_layer;
        }
        Ok(&self.logits)
    }

    /// Runs every token from position `known` on at the session's depth.
    fn run_from(&mut self, known: usize) -> Result<()> {
        self.model.embed(&self.tokens[known..], &mut self.hidden)?;
        self.cache.truncate(known);
        Ok(self.model.forward(0..self.exit_layer, &mut self.hidden, &mut self.cache)?)
    }

    /// The logits that were computed last: of one token, or of each of a draft.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// All the work that the session has done.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Forgets every token from `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        self.cut(len);
    }

    /// Forgets what was computed from position `len` on.
    fn cut(&mut self, len: usize) {
        if let Some(confident) = &mut self.confident {
            confident.cut(len, &self.cache);
        }
        self.cache.truncate(len);
    }
}
