//! Drafts within a session: the first layers run over one token after another, and the rest follows in one
//! call.

use super::Session;
use crate::climb::Climber;
use crate::{Error, Result};
use offramp_model::Hidden;

/// What a draft needs beside the tokens in flight, which are those that have reached the depth that drafts.
#[derive(Debug, Default)]
pub(super) struct Drafting {
    pub(super) newest: Hidden, // the token that has yet to reach that depth
    pub(super) depth: usize,   // where it stands
    probe: Option<usize>,
    probed: Hidden, // the tokens in flight, as they were at the depth that is probed
}

impl Session {
    /// Begins a draft by the first `draft_layer` layers, at most as many as the session runs, with the one
    /// token that was put into flight; `probe` is a depth above 0 at which the draft's tokens are to be read
    /// too.
    pub(crate) fn begin_draft(&mut self, draft_layer: usize, probe: Option<usize>) {
        let Self { ahead, flight, exit_layer, .. } = self;
        debug_assert_eq!((flight.hidden.tokens(), flight.depth), (1, 0));
        std::mem::swap(&mut ahead.newest, &mut flight.hidden);
        flight.hidden.clear();
        flight.depth = draft_layer.min(*exit_layer);
        ahead.depth = 0;
        ahead.probe = probe.filter(|probe| probe <= exit_layer);
        ahead.probed.clear();
    }

    /// Appends a token to the draft. If it fails, nothing has changed.
    pub(crate) fn extend_draft(&mut self, token: u32) -> Result<()> {
        let before = self.tokens.len();
        if before == self.capacity() {
            return Err(Error::ContextFull { tokens: before + 1, context: self.capacity() });
        }
        self.model.embed(&[token], &mut self.ahead.newest)?;
        self.ahead.depth = 0;
        self.tokens.push(token);
        Ok(())
    }

    /// The draft's newest token on its way to the depth that is probed, if that is the nearer one, or to the
    /// depth that drafts.
    pub(crate) fn newest_climber(&mut self) -> Climber<'_> {
        let Self { cache, ahead: Drafting { newest, depth, probe, .. }, flight, .. } = self;
        let to = probe.filter(|probe| *depth < *probe).map_or(flight.depth, |probe| probe.min(flight.depth));
        Climber { cache, hidden: newest, depth, to, exits: None }
    }

    /// Notes the newest token where it stands: it may have reached the depth that is probed, or the one that
    /// drafts. Whether it has reached the latter.
    pub(crate) fn newest_arrived(&mut self) -> bool {
        let Self { ahead, flight, .. } = self;
        if ahead.newest.tokens() == 0 {
            return true; // it has been noted, while other texts were still on their way
        }
        if ahead.probe == Some(ahead.depth) {
            ahead.probed.append(&ahead.newest, 0..1);
        }
        let arrived = ahead.depth == flight.depth;
        if arrived {
            flight.hidden.append(&ahead.newest, 0..1);
            ahead.newest.clear();
        }
        arrived
    }

    /// The draft's tokens on their way to the depth that is probed, if they have not been there.
    pub(crate) fn probe_climber(&mut self) -> Option<Climber<'_>> {
        let probe = self.ahead.probe.filter(|&probe| probe > self.flight.depth)?;
        Some(self.climber(probe))
    }

    /// The draft's tokens as they were at the depth that is probed: after [`Session::probe_climber`] was
    /// there.
    pub(crate) fn probed(&mut self) -> &Hidden {
        let Self { ahead, flight, .. } = self;
        if ahead.probed.tokens() == 0 && ahead.probe == Some(flight.depth) {
            ahead.probed.assign(&flight.hidden, 0..flight.hidden.tokens());
        }
        &ahead.probed
    }
}
