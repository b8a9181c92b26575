//! One text's part in a step.

use crate::chooser::Choice;
use crate::climb::Climber;
use crate::progress::Progress;
use crate::round::Round;
use crate::session::Session;
use crate::speculate::{Lesson, Plan, Speculation};
use crate::workspace::Workspace;

/// A text that takes part in a step.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    pub(crate) session: &'a mut Session,
    pub(crate) speculation: &'a mut Speculation,
    pub(crate) progress: &'a mut Progress,
}

/// What a text does in a step.
#[derive(Debug)]
pub(crate) struct Turn<'t> {
    pub(crate) session: &'t mut Session,
    pub(crate) speculation: &'t mut Speculation,
    pub(crate) progress: &'t mut Progress,
    pub(crate) plan: Plan,
    /// Tokens that the first layers chose.
    pub(crate) draft: Vec<Choice>,
    /// The token that the draft's head chose last.
    pub(crate) chosen: Option<Choice>,
    /// One more that was not worth verifying.
    pub(crate) dropped: Option<Choice>,
    /// What the exit that is probed would have chosen.
    pub(crate) probed: Vec<Choice>,
    /// The chance that the whole draft is accepted.
    pub(crate) chance: f64,
    /// Whether the first layers run ahead with this text.
    pub(crate) drafts: bool,
    /// Whether the adaptive policy planned it.
    pub(crate) adaptive: bool,
    /// Rows whose logits are to be read.
    pub(crate) read: usize,
    /// Whether a token is to be chosen after the last of them: the prompt is complete.
    pub(crate) chooses: bool,
}

impl Turn<'_> {
    /// Whether this text may draft in this step: it has one token in flight, which does not leave early.
    pub(crate) fn may_draft(&self) -> bool {
        self.chooses
            && self.progress.newest().is_some()
            && self.session.in_flight().tokens() == 1
            && !self.session.is_leaving()
            && self.speculation.drafts()
    }

    /// Whether layers apart draft for it.
    pub(super) fn drafts_apart(&self) -> bool {
        self.drafts && self.plan.drafter.apart
    }

    /// Whether its own first layers draft for it.
    pub(super) fn drafts_within(&self) -> bool {
        self.drafts && !self.plan.drafter.apart
    }

    pub(super) fn climber_to_the_end(&mut self) -> Climber<'_> {
        let depth = self.session.exit_layer();
        self.session.climber(depth)
    }

    /// Takes over what the step brought, this text and, with it, all that were planned together.
    pub(super) fn settle(&mut self, round: &Round, came: usize, workspace: &Workspace) {
        self.session.land();
        if !self.chooses {
            return; // the prompt goes on
        }
        let lesson = Lesson {
            plan: self.plan,
            draft: &self.draft,
            dropped: self.dropped,
            probed: &self.probed,
            round,
            came,
            rows: self.session.in_flight().tokens(),
            times: &workspace.times,
        };
        if self.adaptive {
            self.speculation.learn(&lesson);
        }
        if self.progress.newest().is_some() {
            self.session.truncate(self.session.before() + round.tokens.len().max(1));
        }
        self.progress.receive(self.session, round);
    }
}
