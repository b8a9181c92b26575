//! What a step says of a text's plan.

use super::plan::Plan;
use crate::chooser::Choice;
use crate::round::Round;
use crate::workspace::CallTime;

/// What a step says of a text's plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lesson<'a> {
    pub(crate) plan: Plan,
    /// Tokens that were verified.
    pub(crate) draft: &'a [Choice],
    /// One more that was drafted.
    pub(crate) dropped: Option<Choice>,
    /// What the exit that was probed chose after each token.
    pub(crate) probed: &'a [Choice],
    /// What came of it.
    pub(crate) round: &'a Round,
    /// Tokens of all texts that were planned together.
    pub(crate) came: usize,
    /// Rows that went through all layers.
    pub(crate) rows: usize,
    /// What the step's calls took.
    pub(crate) times: &'a [CallTime],
}
