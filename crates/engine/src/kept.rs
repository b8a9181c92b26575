//! What texts that have ended leave for others that begin alike: their blocks of keys and values, until
//! somebody needs the blocks.

use crate::session::Session;
use std::collections::VecDeque;

/// At most so many texts are remembered, so that looking for one stays cheap.
const MOST: usize = 1024;

/// The sessions of ended texts, the one that was used longest ago first. They hold full blocks only, and are
/// promised no more.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    sessions: VecDeque<Session>,
}

impl Kept {
    /// Keeps the full blocks of an ended text.
    pub(crate) fn keep(&mut self, session: Session) {
        let Ok(session) = session.full_blocks() else { return };
        if session.tokens().is_empty() {
            return;
        }
        let covers = |long: &Session, short: &Session| {
            long.exit_layer() == short.exit_layer() && long.tokens().starts_with(short.tokens())
        };
        if self.sessions.iter().any(|kept| covers(kept, &session)) {
            return;
        }
        self.sessions.retain(|kept| !covers(&session, kept));
        if self.sessions.len() == MOST {
            self.sessions.pop_front();
        }
        self.sessions.push_back(session);
    }

    /// The session that holds most of the `beginning` of a text, and how much; `None` if none holds any.
    pub(crate) fn longest(&mut self, beginning: &[u32], exit_layer: usize) -> Option<(usize, &Session)> {
        let held = self.sessions.iter().map(|session| session.common_prefix(beginning, exit_layer));
        let (index, held) = held.enumerate().max_by_key(|(_, held)| *held).filter(|(_, held)| *held > 0)?;
        let session = self.sessions.remove(index)?;
        self.sessions.push_back(session);
        self.sessions.back().map(|session| (held, session))
    }

    /// Gives up what was used longest ago; whether there was any.
    pub(crate) fn give_up_one(&mut self) -> bool {
        self.sessions.pop_front().is_some()
    }

    /// Positions that are held; those that texts share count for each.
    pub(crate) fn positions(&self) -> usize {
        self.sessions.iter().map(|session| session.tokens().len()).sum()
    }
}
