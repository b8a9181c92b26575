//! One text in the making: its tokens, its cache, and the depth at which it runs.

mod apart;
mod confident;
mod draft;

use crate::climb::{Climber, climb};
use crate::confident::Confident;
use crate::workspace::Workspace;
use crate::{Error, Result};
use draft::Drafting;
use offramp_model::{BlockPool, Hidden, KvCache, Llama};
use std::sync::Arc;

/// A sequence of tokens over a model, continued by [`Session::feed`].
///
/// The exit layer may change at any time. Moving it down costs nothing; after moving it up, the next
/// `feed` runs again whatever the deeper layers have not seen, so that the logits are those of a
/// session that had stood at that depth from the start, bit for bit. With a
/// [`ConfidenceExit`](crate::ConfidenceExit) they are not: see [`Session::set_confidence_exit`].
#[derive(Debug)]
pub struct Session {
    model: Arc<Llama>,
    exit_layer: usize,
    tokens: Vec<u32>,
    cache: KvCache,
    flight: Flight,
    ahead: Drafting,
    confident: Option<Confident>,
}

/// The newest tokens, on their way up.
#[derive(Debug, Default)]
struct Flight {
    hidden: Hidden,
    depth: usize,
    before: usize, // tokens that the session held before these came
    leaving: bool, // whether the one token may leave at a confidence exit
}

impl Session {
    /// An empty session at full depth, for up to `capacity` tokens, with memory of its own.
    ///
    /// # Errors
    /// If the model's context is shorter than that, or the memory has no room for so many.
    pub fn new(model: &Arc<Llama>, capacity: usize) -> Result<Self> {
        check_context(model, capacity)?;
        model.check_cache(capacity)?;
        Ok(Self::of(model, model.new_cache(capacity)))
    }

    /// As [`Session::new`], with blocks of a pool of this model.
    ///
    /// # Errors
    /// If the model's context is shorter than that, or the pool has not so many blocks left.
    pub fn new_in(model: &Arc<Llama>, pool: &Arc<BlockPool>, capacity: usize) -> Result<Self> {
        check_context(model, capacity)?;
        Ok(Self::of(model, KvCache::new(pool, capacity)?))
    }

    fn of(model: &Arc<Llama>, cache: KvCache) -> Self {
        Self {
            model: Arc::clone(model),
            exit_layer: model.config().num_hidden_layers,
            tokens: Vec::new(),
            cache,
            flight: Flight::default(),
            ahead: Drafting::default(),
            confident: None,
        }
    }

    /// A session for up to `capacity` tokens that begins with the first `len` of this one, whose blocks both
    /// share; it stands at this one's exit layer.
    ///
    /// # Errors
    /// If the pool has no blocks left for the rest: that of [`Session::new`] has none.
    pub fn fork(&self, len: usize, capacity: usize) -> Result<Self> {
        check_context(&self.model, capacity)?;
        let len = len.min(self.tokens.len());
        let cache = self.cache.fork(self.exact(len), capacity)?;
        let mut session = Self::of(&self.model, cache);
        session.exit_layer = self.exit_layer;
        session.tokens.extend_from_slice(&self.tokens[..len]);
        Ok(session)
    }

    /// What of this session others can take over: its full blocks, and nothing that it was promised beside.
    ///
    /// # Errors
    /// As [`Session::fork`].
    pub(crate) fn full_blocks(&self) -> Result<Self> {
        let known = (0..self.exit_layer).map(|layer| self.cache.len(layer)).min().unwrap_or(0);
        let exact = self.exact(known.min(self.tokens.len()));
        let len = exact - exact % offramp_kernels::attend::BLOCK;
        self.fork(len, len)
    }

    /// The model it runs.
    pub fn model(&self) -> &Arc<Llama> {
        &self.model
    }

    /// Layers that a token takes.
    pub fn exit_layer(&self) -> usize {
        self.exit_layer
    }

    /// Leaves after `exit_layer` layers from the next token on, or before where a confidence exit is set;
    /// then tokens that left are run again at the new depth with the next.
    ///
    /// # Errors
    /// If it is not `1..=num_hidden_layers`, or not above all of the confidence exits.
    pub fn set_exit_layer(&mut self, exit_layer: usize) -> Result<()> {
        self.model.config().check_exit_layer(exit_layer)?;
        if exit_layer != self.exit_layer {
            self.confidence_exit().map_or(Ok(()), |exit| exit.check(exit_layer))?;
            self.exit_layer = exit_layer;
            self.recall();
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

    /// Appends `tokens`, runs what has not been run at this depth, and returns the logits after the last,
    /// `[vocab]`. With a confidence exit set, a token that comes alone may leave there, and the logits are
    /// those of where it left; others run at full depth.
    ///
    /// # Errors
    /// If there is no token at all, one is not in the vocabulary, they do not fit, or there is no memory for
    /// what they leave in the cache; then the session holds the tokens that it held, and what follows them is
    /// the same.
    pub fn feed<'w>(&mut self, tokens: &[u32], workspace: &'w mut Workspace) -> Result<&'w [f32]> {
        self.run(tokens, 1, true, workspace)
    }

    /// As [`Session::feed`], but returns the logits after each of `tokens`, `[tokens, vocab]`: what they are
    /// verified by. None of them leaves at a confidence exit.
    ///
    /// # Errors
    /// As [`Session::feed`]; here too if `tokens` is empty.
    pub fn feed_each<'w>(&mut self, tokens: &[u32], workspace: &'w mut Workspace) -> Result<&'w [f32]> {
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        self.run(tokens, tokens.len(), false, workspace)
    }

    /// Appends `tokens`; the logits after the last `rows`. The one token of a call may `leave`.
    fn run<'w>(
        &mut self,
        tokens: &[u32],
        rows: usize,
        leave: bool,
        workspace: &'w mut Workspace,
    ) -> Result<&'w [f32]> {
        self.begin(tokens, rows, leave, workspace)?;
        let (model, exit_layer) = (Arc::clone(&self.model), self.exit_layer);
        if let Err(error) = climb(&model, &mut [self.climber(exit_layer)], workspace) {
            self.abort();
            return Err(error);
        }
        match self.left() {
            Some(logits) => logits.clone_into(&mut workspace.logits),
            None => {
                let all = self.flight.hidden.tokens();
                let Workspace { scratch, logits, .. } = workspace;
                self.model.head(&self.flight.hidden, all - rows..all, logits, scratch);
            }
        }
        self.land();
        Ok(&workspace.logits)
    }

    /// Appends `tokens` and puts those into flight that have to be run, at depth 0: those that are not known
    /// at this depth, and the last `rows`, whose logits are to be read. If it fails, nothing has changed.
    pub(crate) fn begin(
        &mut self,
        tokens: &[u32],
        rows: usize,
        leave: bool,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (before, after) = (self.tokens.len(), self.tokens.len() + tokens.len());
        if after > self.capacity() {
            return Err(Error::ContextFull { tokens: after, context: self.capacity() });
        }
        if after == 0 {
            return Err(Error::NoTokens);
        }
        tokens.iter().try_for_each(|&token| self.model.config().check_token(token))?;
        let leaving = leave && tokens.len() == 1 && self.may_leave();
        let known = if leaving {
            before
        } else {
            self.cut(after - rows);
            self.fill_all(&mut workspace.scratch)?;
            (0..self.exit_layer).map(|layer| self.cache.len(layer)).min().unwrap_or(0)
        };
        self.tokens.extend_from_slice(tokens);
        self.model.embed(&self.tokens[known..], &mut self.flight.hidden)?;
        if !leaving {
            self.cache.truncate(known);
        }
        (self.flight.depth, self.flight.before, self.flight.leaving) = (0, before, leaving);
        if let Some(confident) = &mut self.confident {
            confident.expect(before);
        }
        Ok(())
    }

    /// The tokens in flight, on their way to a depth.
    pub(crate) fn climber(&mut self, to: usize) -> Climber<'_> {
        let Self { cache, flight: Flight { hidden, depth, leaving, .. }, confident, .. } = self;
        Climber { cache, hidden, depth, to, exits: confident.as_mut().filter(|_| *leaving) }
    }

    /// Whether the one token in flight may leave at a confidence exit.
    pub(crate) fn is_leaving(&self) -> bool {
        self.flight.leaving
    }

    /// The logits of the token in flight, if it left early.
    pub(crate) fn left(&self) -> Option<&[f32]> {
        let left = self.flight.leaving && self.flight.depth < self.exit_layer;
        self.confident.as_ref().filter(|_| left).map(|confident| &confident.logits[..])
    }

    /// The states of the tokens in flight.
    pub(crate) fn in_flight(&self) -> &Hidden {
        &self.flight.hidden
    }

    /// Tokens that the session held before those in flight came.
    pub(crate) fn before(&self) -> usize {
        self.flight.before
    }

    /// The tokens in flight have arrived.
    pub(crate) fn land(&mut self) {
        if let Some(confident) = &mut self.confident {
            confident.left_at = self.flight.depth;
            if self.flight.leaving {
                confident.depths.count(self.flight.depth);
            }
        }
    }

    /// Forgets the tokens in flight: the layers below the one that failed have seen them.
    pub(crate) fn abort(&mut self) {
        self.truncate(self.flight.before);
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

    /// How many of `tokens` a session at `exit_layer` could take over from this one.
    pub(crate) fn common_prefix(&self, tokens: &[u32], exit_layer: usize) -> usize {
        let same = self.tokens.iter().zip(tokens).take_while(|(held, given)| held == given).count();
        let known = (0..exit_layer).map(|layer| self.cache.len(layer)).min().unwrap_or(0);
        self.exact(same.min(known))
    }
}

/// Checks that the model's context is as long.
fn check_context(model: &Llama, capacity: usize) -> Result<()> {
    let context = model.config().context();
    if capacity > context { Err(Error::ContextFull { tokens: capacity, context }) } else { Ok(()) }
}
