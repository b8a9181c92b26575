//! The tokens in flight: their residual streams.

use std::ops::Range;

/// The residual streams of some tokens, of one text or of many, between any two layers.
///
/// It is made by [`Llama::embed`](crate::Llama::embed), moved on by [`Llama::forward`](crate::Llama::forward)
/// and read by [`Llama::head`](crate::Llama::head). An empty one takes tokens of any model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hidden {
    pub(crate) hidden_size: usize,
    pub(crate) stream: Vec<f32>,   // [tokens, hidden]
    pub(crate) depths: Vec<usize>, // [tokens], layers that each has been through
}

impl Hidden {
    pub(crate) fn new(hidden_size: usize) -> Self {
        Self { hidden_size, stream: Vec::new(), depths: Vec::new() }
    }

    /// How many tokens are in flight.
    pub fn tokens(&self) -> usize {
        self.stream.len() / self.hidden_size.max(1)
    }

    /// The residual streams, `[tokens, hidden]`.
    pub fn as_slice(&self) -> &[f32] {
        &self.stream
    }

    /// Takes everything out of flight; the buffer stays.
    pub fn clear(&mut self) {
        self.stream.clear();
        self.depths.clear();
    }

    /// Puts some tokens of another stream behind these, at the depth at which they stand.
    ///
    /// # Panics
    /// If the other has not so many tokens, or belongs to a model of another width.
    pub fn append(&mut self, other: &Self, tokens: Range<usize>) {
        if self.stream.is_empty() {
            self.hidden_size = other.hidden_size;
        }
        assert_eq!(self.hidden_size, other.hidden_size, "hidden states of the same width");
        let width = self.hidden_size;
        self.stream.extend_from_slice(&other.stream[tokens.start * width..tokens.end * width]);
        self.depths.extend_from_slice(&other.depths[tokens]);
    }

    /// Replaces these tokens by some of another stream.
    ///
    /// # Panics
    /// As [`Hidden::append`].
    pub fn assign(&mut self, other: &Self, tokens: Range<usize>) {
        self.clear();
        self.append(other, tokens);
    }

    /// Takes all but the first `tokens` out of flight.
    pub fn truncate(&mut self, tokens: usize) {
        self.stream.truncate(tokens * self.hidden_size);
        self.depths.truncate(tokens);
    }
}
