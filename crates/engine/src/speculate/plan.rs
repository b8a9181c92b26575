//! What a text does in a step.

/// What a text does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Layers that draft.
    pub(crate) exit_layer: usize,
    /// Tokens that are drafted, at most; with 0 this is plain decoding.
    pub(crate) num_speculations: usize,
    /// Whether layers apart draft, and every layer verifies.
    pub(crate) apart: bool,
    /// An exit that is asked what it would have said.
    pub(crate) probe: Option<usize>,
}

impl Plan {
    /// Plain decoding at a depth.
    pub(crate) fn plain(depth: usize) -> Self {
        Self { exit_layer: depth, num_speculations: 0, apart: false, probe: None }
    }
}
