//! What drafts: the first layers of the model, or a copy of them.

use offramp_model::{DraftHead, DraftLayers, Llama};

/// Layers that draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Drafter {
    pub(crate) exit_layer: usize,
    /// Whether they are copies apart, and every layer verifies.
    pub(crate) apart: bool,
}

impl Drafter {
    /// The model's own first layers; all of them stand for plain decoding.
    pub(crate) const fn own(exit_layer: usize) -> Self {
        Self { exit_layer, apart: false }
    }

    /// Copies of the first layers.
    pub(crate) const fn copy(exit_layer: usize) -> Self {
        Self { exit_layer, apart: true }
    }

    /// Layers that have yet to verify the draft of a model of `depth` layers.
    pub(crate) fn above(self, depth: usize) -> usize {
        if self.apart { depth } else { depth - self.exit_layer }
    }
}

/// What there is in fewer bits than the model has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copies<'a> {
    pub(crate) head: Option<&'a DraftHead>,
    pub(crate) layers: Option<&'a DraftLayers>,
}

impl Copies<'_> {
    /// The layers as a model.
    pub(crate) fn model(&self) -> Option<&Llama> {
        self.layers.map(|layers| &**layers.model())
    }
}
