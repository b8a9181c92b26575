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

use crate::Result;
use crate::sampler::Sampler;
use crate::session::Session;

/// How a text is drafted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Layers that draft.
    pub exit_layer: usize,
    /// Tokens that are drafted in a round, at most; with 0 this is plain decoding.
    pub num_speculations: usize,
}

/// What came of one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// How the text goes on: the accepted part of the draft, then one token that only the full model chose, unless a
    /// stop token ended the draft before.
    pub(crate) tokens: Vec<u32>,
    /// Tokens that were drafted.
    pub(crate) drafted: usize,
    /// Those of them that the full model chose too, up to the first that it did not.
    pub(crate) accepted: usize,
}

/// What chooses tokens, in drafts and after them alike.
#[derive(Debug)]
pub(crate) struct Chooser<'a> {
    pub(crate) sampler: Sampler,
    /// Ids from here on are never chosen.
    pub(crate) token_limit: Option<usize>,
    pub(crate) stop_tokens: &'a [u32],
}

impl Chooser<'_> {
    /// The token that follows `tokens`, by the logits after the last of them.
    pub(crate) fn choose(&mut self, logits: &[f32], tokens: &[u32]) -> Result<u32> {
        let choices = self.token_limit.map_or(logits.len(), |limit| limit.min(logits.len()));
        self.sampler.next(&logits[..choices], tokens)
    }
}

impl Draft {
    /// One round after `newest`, a token that the session does not hold yet. Afterwards it holds `newest` and all of
    /// the round's tokens but the last.
    pub(crate) fn round(
        self,
        session: &mut Session<'_>,
        chooser: &mut Chooser<'_>,
        newest: u32,
    ) -> Result<Round> {
        if self.num_speculations == 0 {
            session.feed(&[newest])?;
            let token = chooser.choose(session.logits(), session.tokens())?;
            return Ok(Round { tokens: vec![token], ..Round::default() });
        }
        let before = session.tokens().len();
        session.begin_draft(self.exit_layer)?;
        let (mut draft, mut token, mut over) = (Vec::with_capacity(self.num_speculations), newest, false);
        while draft.len() < self.num_speculations && !over {
            session.draft(token)?;
            token = chooser.choose(session.logits(), session.tokens())?;
            draft.push(token);
            over = chooser.stop_tokens.contains(&token);
        }
        // Nobody asks what follows a stop token.
        if !over {
            session.extend_draft(token)?;
        }
        verify(session, chooser, (before, &draft))
    }
}

/// Compares a draft, whose first token was put at position `before + 1`, with the full model's choices.
fn verify(
    session: &mut Session<'_>,
    chooser: &mut Chooser<'_>,
    (before, draft): (usize, &[u32]),
) -> Result<Round> {
    session.verify()?;
    let rows = session.draft_len();
    let mut round = Round { drafted: draft.len(), ..Round::default() };
    for row in 0..rows {
        let vocab = session.logits().len() / rows;
        let logits = &session.logits()[row * vocab..][..vocab];
        let token = chooser.choose(logits, &session.tokens()[..=before + row])?;
        round.tokens.push(token);
        if draft.get(row) != Some(&token) {
            break;
        }
        round.accepted += 1;
    }
    session.truncate(before + round.tokens.len());
    Ok(round)
}
