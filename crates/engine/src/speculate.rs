//! Self-speculative decoding (Elhoushi et al. 2024, section 4.3): the first layers draft, the rest verify, and the
//! text is the full model's, token for token.
//!
//! A round begins with the text's newest token, which no layer has seen. The first layers take it and say what comes
//! next, then take that, and so on: the draft. Their keys and values are the full model's, and their hidden states are
//! kept; the remaining layers move all of them on in one call, and the head says at each position what the full model
//! chooses there. The draft counts as far as it agrees, and where it first does not, the full model's choice comes in
//! its place. What was computed for the rest is cut off. Nothing is computed twice.
//!
//! That the text is the same is an equality, not a tolerance: a token's arithmetic does not depend on how many share
//! the call, and chance is tied to the position ([`Sampler`]).

mod adaptive;
mod budget;
mod chances;
mod costs;
mod load;
mod margins;
pub(crate) mod round;

use crate::session::Session;
use crate::{Error, Result};
pub use adaptive::{Adaptive, Chosen};
use offramp_model::{DraftHead, Llama};
pub(crate) use round::{Chooser, Round};
use round::{Plan, Speakers};

/// How a text is drafted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Layers that draft.
    pub exit_layer: usize,
    /// Tokens that are drafted in a round, at most; with 0 this is plain decoding.
    pub num_speculations: usize,
}

/// Whether and how tokens are drafted; what the adaptive policy learnt in one text, it knows in the next of the same
/// model.
#[derive(Clone, Debug, Default)]
pub struct Speculation {
    policy: Policy,
    head: Option<DraftHead>,
}

#[derive(Clone, Debug, Default)]
enum Policy {
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
        Self { policy: Policy::Fixed(draft), head: None }
    }

    /// Exit layer and length as they turn out to pay.
    pub fn auto(adaptive: Adaptive) -> Self {
        Self { policy: Policy::Auto(Box::new(adaptive)), head: None }
    }

    /// Drafts through another head than the model's, of the model that decodes.
    #[must_use]
    pub fn with_head(self, head: Option<DraftHead>) -> Self {
        Self { head, ..self }
    }

    /// Checks that what drafts for `model` was made of it.
    ///
    /// # Errors
    /// If the draft head is another model's.
    pub(crate) fn check_head(&self, model: &Llama) -> Result<()> {
        match &self.head {
            Some(head) if !head.is_of(model) => Err(Error::ForeignDraftHead),
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

    /// One round after `newest`, a token that the session does not hold yet; at most `room` tokens are drafted.
    pub(crate) fn round(
        &mut self,
        session: &mut Session<'_>,
        chooser: &mut Chooser<'_>,
        newest: u32,
        room: usize,
    ) -> Result<Round> {
        let (model, depth, head) = (session.model(), session.exit_layer(), self.head.as_ref());
        let plain = Draft { exit_layer: depth, num_speculations: 0 };
        let (plan, adaptive) = match &mut self.policy {
            Policy::Auto(adaptive) => (adaptive.plan((model, head), depth, room), Some(adaptive.as_mut())),
            policy => {
                let draft = if let Policy::Fixed(draft) = policy { *draft } else { plain };
                let num_speculations = draft.num_speculations.min(room);
                if num_speculations == 0 {
                    session.feed(&[newest])?;
                    let (token, _) = chooser.choose(session.logits(), session.tokens())?;
                    return Ok(Round { tokens: vec![token], ..Round::default() });
                }
                (Plan { exit_layer: draft.exit_layer, num_speculations, probe: None }, None)
            }
        };
        Speakers { session, chooser, head, adaptive }.round(newest, plan)
    }
}
