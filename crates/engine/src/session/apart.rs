//! Drafts by layers apart: copies in a narrower format, with a cache of their own.

use super::Session;
use crate::climb::Climber;
use crate::{Error, Result};
use offramp_model::{DraftLayers, Hidden, KvCache};

/// Tokens that a copy reads in one call: it has a prompt to catch up with.
const PIECE: usize = 512;

/// What a copy knows of the text.
#[derive(Debug)]
pub(super) struct Apart {
    layers: DraftLayers,
    cache: KvCache,
    hidden: Hidden,
    depth: usize,
    to: usize,   // layers that draft
    next: usize, // the first token that it has not read
}

impl Apart {
    /// Forgets every token from `len` on.
    pub(super) fn cut(&mut self, len: usize) {
        self.cache.truncate(len);
        self.next = self.next.min(len);
    }
}

impl Session {
    /// Begins a draft by the first `draft_layer` of `layers`, after the one token that was put into flight.
    ///
    /// # Errors
    /// If there is no memory for a cache.
    pub(crate) fn begin_apart(&mut self, layers: &DraftLayers, draft_layer: usize) -> Result<()> {
        debug_assert_eq!((self.flight.hidden.tokens(), self.flight.depth), (1, 0));
        if self.apart.as_ref().is_none_or(|apart| apart.layers.id() != layers.id()) {
            layers.model().check_cache(self.capacity())?;
            self.apart = Some(Box::new(Apart {
                cache: layers.model().new_cache(self.capacity()),
                layers: layers.clone(),
                hidden: Hidden::default(),
                depth: 0,
                to: draft_layer,
                next: 0,
            }));
        }
        if let Some(apart) = &mut self.apart {
            let known = (0..draft_layer).map(|layer| apart.cache.len(layer)).min().unwrap_or(0);
            apart.cut(known);
            apart.next = known;
            (apart.to, apart.depth) = (draft_layer, draft_layer);
            apart.hidden.clear();
        }
        Ok(())
    }

    /// Gives the copy the next tokens that it has not read; whether there were any.
    pub(crate) fn feed_apart(&mut self) -> Result<bool> {
        let Self { model, tokens, apart: Some(apart), .. } = self else { return Ok(false) };
        let rest = &tokens[apart.next..];
        if rest.is_empty() {
            return Ok(false);
        }
        let piece = &rest[..rest.len().min(PIECE)];
        model.embed(piece, &mut apart.hidden)?;
        apart.next += piece.len();
        apart.depth = 0;
        Ok(true)
    }

    /// Those tokens on their way to the depth that drafts.
    pub(crate) fn apart_climber(&mut self) -> Option<Climber<'_>> {
        let Apart { cache, hidden, depth, to, .. } = self.apart.as_deref_mut()?;
        Some(Climber { cache, hidden, depth, to: *to, exits: None })
    }

    /// Their states.
    pub(crate) fn apart_states(&self) -> &Hidden {
        self.apart.as_ref().map_or(&self.flight.hidden, |apart| &apart.hidden)
    }

    /// Appends a token to the draft.
    pub(crate) fn extend_apart(&mut self, token: u32) -> Result<()> {
        let before = self.tokens.len();
        if before == self.capacity() {
            return Err(Error::ContextFull { tokens: before + 1, context: self.capacity() });
        }
        self.tokens.push(token);
        Ok(())
    }

    /// Puts the draft into flight, after the token that was there.
    pub(crate) fn end_apart(&mut self) -> Result<()> {
        let first = self.flight.before;
        self.model.embed(&self.tokens[first..], &mut self.flight.hidden)?;
        self.flight.depth = 0;
        Ok(())
    }
}
