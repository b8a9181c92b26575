//! Drafts by layers apart, which are copies of the first ones in a narrower format.
//!
//! They read the keys and values that the model itself left, and put their own behind them until the draft is
//! over: what they know of the text is exact, and nothing has to be run for them beforehand.

use super::Session;
use crate::Result;
use crate::climb::Climber;
use offramp_model::Hidden;

impl Session {
    /// The draft's newest token on its way through the layers apart.
    pub(crate) fn apart_climber(&mut self) -> Climber<'_> {
        let Self { cache, ahead, flight, .. } = self;
        Climber { cache, hidden: &mut ahead.newest, depth: &mut ahead.depth, to: flight.depth, exits: None }
    }

    /// The state of the draft's newest token.
    pub(crate) fn apart_state(&self) -> &Hidden {
        &self.ahead.newest
    }

    /// Puts the draft into flight, after the token that was there: what the layers apart left is forgotten.
    pub(crate) fn end_apart(&mut self) -> Result<()> {
        let first = self.flight.before;
        self.cache.truncate(first);
        self.ahead.newest.clear();
        self.model.embed(&self.tokens[first..], &mut self.flight.hidden)?;
        self.flight.depth = 0;
        Ok(())
    }
}
