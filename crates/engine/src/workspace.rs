//! Buffers that one caller lends to all texts that it runs.

use offramp_model::{Hidden, Work};

/// What a step needs beside its texts: kept from step to step, for any models and texts, one step at a time.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(crate) scratch: offramp_model::Scratch,
    /// Rows of several texts that share a call.
    pub(crate) rows: Hidden,
    /// The logits that were computed last, `[rows, vocab]`.
    pub(crate) logits: Vec<f32>,
    /// What calls took since the step began.
    pub(crate) times: Vec<CallTime>,
}

/// A call, and how long it took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallTime {
    pub(crate) call: Call,
    pub(crate) rows: usize,
    pub(crate) seconds: f64,
}

/// What a call was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// So many layers.
    Layers(usize),
    /// So many layers that only draft.
    DraftLayers(usize),
    /// The model's head, and the choice of a token from each row.
    Head,
    /// The head that drafts, and the choice of a token from each row.
    DraftHead,
}

impl Workspace {
    /// One without any buffers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// All the work that was done with it.
    pub fn work(&self) -> Work {
        self.scratch.work()
    }

    /// The logits that were computed last, `[rows, vocab]`.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }
}
