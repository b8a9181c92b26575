//! Names of tensors that `transformers` takes for the same.

use crate::tensor::{HEAD, TensorSpec};
use std::collections::BTreeSet;

/// The prefix of every tensor's name but the head's. A model saved without its head lacks it.
const MODEL: &str = "model.";
/// Buffers of the rotary embedding. They follow from the config; transformers wrote them before 4.31.
const ROTARY: &str = "rotary_emb.";

/// The tensors of a model.
pub(super) struct Names {
    known: BTreeSet<String>,
    tied: bool, // and the head is not one of them
}

impl Names {
    pub(super) fn of(specs: &[TensorSpec]) -> Self {
        let mut known: BTreeSet<_> = specs.iter().map(|spec| spec.name.clone()).collect();
        let tied = known.insert(HEAD.to_owned());
        Self { known, tied }
    }

    /// The model's name of a tensor that a file calls `name`, with or without the prefix; an unknown name
    /// stays as it is.
    pub(super) fn canonical(&self, name: &str) -> String {
        let bare = name.strip_prefix(MODEL).unwrap_or(name);
        let candidates = [name.to_owned(), bare.to_owned(), format!("{MODEL}{name}")];
        candidates.into_iter().find(|name| self.known.contains(name)).unwrap_or_else(|| name.to_owned())
    }

    /// Whether a tensor of a file is not needed: the head of a tied model, which is the embedding, or a
    /// buffer.
    pub(super) fn ignores(&self, name: &str) -> bool {
        let rotary = name.starts_with(ROTARY) || name.contains(&format!(".{ROTARY}"));
        rotary || self.tied && self.canonical(name) == HEAD
    }
}
