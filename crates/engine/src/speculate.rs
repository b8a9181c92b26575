//! Self-speculative decoding (Elhoushi et al. 2024, section 4.3): the first layers draft, the rest verify,
//! and the text is the full model's, token for token.
//!
//! A step begins with the text's newest token, which no layer has seen. The first layers take it and say what
//! comes next, then take that, and so on: the draft. Their keys and values are the full model's, and their
//! hidden states are kept; the remaining layers move all of them on in one call, and the head says at each
//! position what the full model chooses there. The draft counts as far as it agrees, and where it first does
//! not, the full model's choice comes in its place. What was computed for the rest is cut off. Nothing is
//! computed twice.
//!
//! That the text is the same is an equality, not a tolerance: a token's arithmetic does not depend on how
//! many share the call, and chance is tied to the position ([`Sampler`]).

mod adaptive;
mod budget;
mod chances;
mod costs;
mod drafter;
mod drafts;
mod lesson;
mod load;
mod named;
mod paces;
mod plan;
mod state;
mod sureness;
mod together;

use crate::{Error, Result};
pub use adaptive::{Adaptive, Chosen};
pub(crate) use drafter::{Copies, Drafter};
pub(crate) use lesson::Lesson;
pub use named::{Speculate, UnknownSpeculation};
use offramp_model::{DraftHead, DraftLayers, Llama};
pub(crate) use plan::Plan;
pub(crate) use state::Subject;
pub(crate) use sureness::Sureness;
pub(crate) use together::plan_together;

/// How a text is drafted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Layers that draft.
    pub exit_layer: usize,
    /// Tokens that are drafted in a round, at most; with 0 this is plain decoding.
    pub num_speculations: usize,
}

/// Whether and how tokens are drafted; what the adaptive policy learnt in one text, it knows in the next of
/// the same model.
#[derive(Clone, Debug, Default)]
pub struct Speculation {
    pub(crate) policy: Policy,
    pub(crate) head: Option<DraftHead>,
    pub(crate) layers: Option<DraftLayers>,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Policy {
    #[default]
    Off,
    Fixed(Draft),
    Auto(Box<Adaptive>),
}

impl Speculation {
    /// Plain decoding.
    pub fn off() -> Self {
        Self::default()
    }

    /// The same draft in every round.
    pub fn fixed(draft: Draft) -> Self {
        Self { policy: Policy::Fixed(draft), ..Self::default() }
    }

    /// Exit layer and length as they turn out to pay.
    pub fn auto(adaptive: Adaptive) -> Self {
        Self { policy: Policy::Auto(Box::new(adaptive)), ..Self::default() }
    }

    /// Drafts through another head than the model's, of the model that decodes.
    #[must_use]
    pub fn with_head(self, head: Option<DraftHead>) -> Self {
        Self { head, ..self }
    }

    /// Drafts by copies of the first layers, of the model that decodes, and every layer verifies. A fixed
    /// draft is theirs; the adaptive policy chooses between them and the model's own.
    #[must_use]
    pub fn with_layers(self, layers: Option<DraftLayers>) -> Self {
        Self { layers, ..self }
    }

    /// Checks that what drafts for `model` was made of it.
    ///
    /// # Errors
    /// If the draft head or the layers are another model's, or there are fewer layers than the draft takes.
    pub(crate) fn check_drafts(&self, model: &Llama) -> Result<()> {
        let foreign_head = self.head.as_ref().is_some_and(|head| !head.is_of(model));
        let Some(layers) = &self.layers else {
            return if foreign_head { Err(Error::ForeignDraftHead) } else { Ok(()) };
        };
        match &self.policy {
            _ if foreign_head || !layers.is_of(model) => Err(Error::ForeignDraftHead),
            Policy::Fixed(Draft { exit_layer, .. }) if *exit_layer > layers.layers() => {
                Err(Error::TooFewDraftLayers { exit_layer: *exit_layer, layers: layers.layers() })
            }
            _ => Ok(()),
        }
    }

    /// What the adaptive policy has chosen so far, shallow exits first; nothing of any other.
    pub fn chosen(&self) -> &[Chosen] {
        if let Policy::Auto(adaptive) = &self.policy { adaptive.chosen() } else { &[] }
    }

    /// The draft of every round, where it is fixed.
    pub(crate) fn draft(&self) -> Option<Draft> {
        if let Policy::Fixed(draft) = self.policy { Some(draft) } else { None }
    }

    /// Whether there may be drafts at all.
    pub(crate) fn drafts(&self) -> bool {
        match &self.policy {
            Policy::Off => false,
            Policy::Fixed(draft) => draft.num_speculations > 0,
            Policy::Auto(_) => true,
        }
    }

    /// The head that drafts, where it is not the model's.
    pub(crate) fn head(&self) -> Option<&DraftHead> {
        self.head.as_ref()
    }

    /// The layers that draft, where they are not the text's own.
    pub(crate) fn layers(&self) -> Option<&DraftLayers> {
        self.layers.as_ref()
    }

    pub(crate) fn is_auto(&self) -> bool {
        matches!(self.policy, Policy::Auto(_))
    }

    /// Whether to draft one more token where all `rows` so far are accepted with `chance`, beside so many
    /// texts that draft.
    pub(crate) fn goes_on(&mut self, plan: &Plan, rows: usize, chance: f64, drafting: usize) -> bool {
        let Policy::Auto(adaptive) = &mut self.policy else { return true };
        adaptive.goes_on(plan.drafter, rows, chance, drafting)
    }

    /// The chance that a token is accepted which the draft chose so surely.
    pub(crate) fn chance(&mut self, plan: &Plan, sure: Sureness) -> f64 {
        let Policy::Auto(adaptive) = &mut self.policy else { return 1.0 };
        adaptive.chance(plan.drafter, sure)
    }

    /// Whether to verify a drafted token which, with all before it, is accepted with `chance`.
    pub(crate) fn keeps(&mut self, plan: &Plan, rows: usize, chance: f64, drafting: usize) -> bool {
        let Policy::Auto(adaptive) = &mut self.policy else { return true };
        adaptive.keeps(plan.drafter, rows, chance, drafting)
    }

    /// A step is over.
    pub(crate) fn learn(&mut self, lesson: &Lesson<'_>) {
        if let Policy::Auto(adaptive) = &mut self.policy {
            adaptive.learn(lesson);
        }
    }
}
