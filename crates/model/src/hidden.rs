//! The tokens in flight: their residual stream, and the room that the layers need to work on it.

use offramp_kernels::Operand;
use std::ops::Range;

/// The residual stream of a few tokens, between any two layers.
///
/// It is made by [`Llama::embed`](crate::Llama::embed), moved on by
/// [`Llama::forward`](crate::Llama::forward) and read by [`Llama::head`](crate::Llama::head). Its
/// buffers are kept from call to call.
#[derive(Clone, Debug, Default)]
pub struct Hidden {
    pub(crate) hidden_size: usize,
    pub(crate) stream: Vec<f32>, // [tokens, hidden]
    pub(crate) scratch: Scratch,
}

/// Intermediate results of one layer. Resized by whoever writes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) normed: Vec<f32>,      // [tokens, hidden]
    pub(crate) operand: Operand,      // a product's input, in the formats that weights ask for
    pub(crate) queries: Vec<f32>,     // [tokens, heads, head_dim]
    pub(crate) keys: Vec<f32>,        // [tokens, kv_heads, head_dim]
    pub(crate) values: Vec<f32>,      // [tokens, kv_heads, head_dim]
    pub(crate) attended: Vec<f32>,    // [tokens, heads, head_dim]
    pub(crate) gate: Vec<f32>,        // [tokens, intermediate]
    pub(crate) up: Vec<f32>,          // [tokens, intermediate]
    pub(crate) gated: Vec<f32>,       // [tokens, intermediate]
    pub(crate) residual: Vec<f32>,    // [tokens, hidden]
    pub(crate) shortlisted: Vec<f32>, // [tokens, shortlist]
    pub(crate) angles: Angles,
}

/// Rotary angles of consecutive positions, computed once for all layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Angles {
    pub(crate) positions: Range<usize>,
    pub(crate) cos: Vec<f32>, // [positions, head_dim / 2]
    pub(crate) sin: Vec<f32>, // [positions, head_dim / 2]
}

impl Hidden {
    pub(crate) fn new(hidden_size: usize) -> Self {
        Self { hidden_size, ..Self::default() }
    }

    /// Takes everything out of flight; the buffers stay.
    pub fn clear(&mut self) {
        self.stream.clear();
    }

    /// Puts the tokens of another stream behind these, at the depth at which they stand.
    ///
    /// # Panics
    /// If they belong to a model of another width.
    pub fn append(&mut self, other: &Self) {
        assert_eq!(self.hidden_size, other.hidden_size, "hidden states of the same width");
        self.stream.extend_from_slice(&other.stream);
    }

    /// Takes the first `tokens` out of flight.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn remove_first(&mut self, tokens: usize) {
        self.stream.drain(..tokens * self.hidden_size);
    }

    /// Takes all but the first `tokens` out of flight.
    pub fn truncate(&mut self, tokens: usize) {
        self.stream.truncate(tokens * self.hidden_size);
    }

    /// Bytes that a layer's results of the tokens in flight would take beyond those that are held: `width` values for
    /// each token, `inner` of them in the widest.
    pub(crate) fn missing(&self, width: usize, inner: usize) -> u64 {
        let held = self.scratch.gated.capacity() / inner.max(1);
        match self.tokens() {
            tokens if tokens <= held => 0,
            tokens => (tokens as u64).saturating_mul(width as u64).saturating_mul(size_of::<f32>() as u64),
        }
    }

    /// How many tokens are in flight.
    pub fn tokens(&self) -> usize {
        self.stream.len() / self.hidden_size
    }

    /// The residual stream, `[tokens, hidden]`.
    pub fn data(&self) -> &[f32] {
        &self.stream
    }

    /// One token's residual stream, `[hidden]`.
    ///
    /// # Panics
    /// If there are not so many tokens.
    pub fn row(&self, token: usize) -> &[f32] {
        &self.stream[token * self.hidden_size..][..self.hidden_size]
    }
}
