//! What a text does in a step.

use super::drafter::Drafter;

/// What a text does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Layers that draft.
    pub(crate) drafter: Drafter,
    /// Tokens that are drafted, at most; with 0 this is plain decoding.
    pub(crate) num_speculations: usize,
    /// An exit that is asked what it would have said.
    pub(crate) probe: Option<usize>,
}

impl Plan {
    /// Plain decoding at a depth.
    pub(crate) fn plain(depth: usize) -> Self {
        Self { drafter: Drafter::own(depth), num_speculations: 0, probe: None }
    }
}
