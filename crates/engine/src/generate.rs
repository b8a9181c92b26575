//! Prompt in, tokens out.

use crate::Result;
use crate::completion::{Completion, GenerateOptions, NewToken, StopReason};
use crate::progress::Progress;
use crate::session::Session;
use crate::speculate::Speculation;
use crate::step::step;
use crate::step::turn::Text;
use crate::workspace::Workspace;
use std::ops::ControlFlow;

/// A text that is asked for its next step: what a command, a server and another language drive alike.
///
/// The first step feeds the prompt and brings the first token; each step after it brings one token, or
/// several where drafts are accepted. The text is the same whatever `speculation` does. With a confidence
/// exit set, tokens of the prompt do not leave early (a single token may, in an empty session) and the others
/// may; nothing can be drafted then.
#[derive(Debug)]
pub struct Generation {
    pub(crate) session: Session,
    pub(crate) speculation: Speculation,
    pub(crate) progress: Progress,
}

impl Generation {
    /// A text that continues `session` with `prompt`; nothing is computed yet.
    ///
    /// # Errors
    /// As [`check`](crate::check), which leaves the session with its owner.
    pub fn new(
        session: Session,
        prompt: &[u32],
        options: &GenerateOptions,
        speculation: Speculation,
    ) -> Result<Self> {
        let progress = Progress::new(&session, prompt, options, &speculation)?;
        Ok(Self { session, speculation, progress })
    }

    /// Takes the next step and returns the tokens that came; none once the text has ended.
    ///
    /// # Errors
    /// If logits are not finite, or there is no memory; tokens that came before are part of the text. The
    /// session then holds what it held before the prompt.
    pub fn step(&mut self, workspace: &mut Workspace) -> Result<&[NewToken]> {
        let Self { session, speculation, progress } = self;
        step(&mut [Text { session, speculation, progress }], usize::MAX, workspace)?;
        self.progress.failure().map_or(Ok(()), Err)?;
        Ok(self.progress.came())
    }

    /// Ends the text after the first `heard` tokens of the last step.
    pub fn stop(&mut self, heard: usize) {
        self.progress.stop(&mut self.session, heard);
    }

    /// Why the text has ended, once it has.
    pub fn finished(&self) -> Option<StopReason> {
        self.progress.reason()
    }

    /// The new tokens so far, without prompt and stop token.
    pub fn tokens(&self) -> &[u32] {
        self.progress.tokens()
    }

    /// The session. Unless a stop token came, the last of the new tokens is not in it: nothing was to be
    /// predicted from it. Who goes on with the text feeds it first.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What came of it, with the session and what the speculation learnt, for the next text.
    pub fn into_parts(self) -> (Completion, Session, Speculation) {
        (self.progress.completion(), self.session, self.speculation)
    }
}

/// As a [`Generation`] over a session that stays with its owner, handing each token to `on_token` as it
/// comes.
///
/// # Errors
/// As [`check`](crate::check) and [`Generation::step`]. The session holds what it held before, in any case.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    speculation: &mut Speculation,
    workspace: &mut Workspace,
    on_token: &mut dyn FnMut(NewToken) -> ControlFlow<()>,
) -> Result<Completion> {
    let mut progress = Progress::new(session, prompt, options, speculation)?;
    while !progress.is_over() {
        step(&mut [Text { session, speculation, progress: &mut progress }], usize::MAX, workspace)?;
        progress.failure().map_or(Ok(()), Err)?;
        let heard = progress.came().iter().position(|token| on_token(token.clone()).is_break());
        if let Some(index) = heard {
            progress.stop(session, index + 1);
        }
    }
    Ok(progress.completion())
}
