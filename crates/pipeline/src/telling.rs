//! A text in the telling: tokens become text, piece by piece, until something ends it.

use crate::stop_strings::{Shown, StopStrings};
use crate::{Pipeline, Result};
use offramp_engine::{
    ConfidenceExit, GenerateOptions, Origin, SamplingOptions, Session, Speculation, Statistics, StopReason,
    check, generate,
};
use std::ops::ControlFlow;

/// What is to be told.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The token ids to go on from.
    pub prompt: &'a [u32],
    /// At most so many tokens more.
    pub max_new_tokens: usize,
    /// Layers that a token takes.
    pub exit_layer: usize,
    /// Where tokens may leave before.
    pub confidence: Option<ConfidenceExit>,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// Texts at which it stops, which are not shown.
    pub stop: &'a [String],
}

/// More of the text.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Never empty, and never half a character.
    pub text: &'a str,
    /// How the token came about that completed it.
    pub origin: Origin,
}

/// Why a text ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A token that ends texts came.
    StopToken,
    /// This stop string came.
    StopString(String),
    /// There are as many tokens as were asked for.
    Length,
    /// The context is full.
    ContextFull,
    /// The reader said so.
    Reader,
}

/// What was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The new text, as it was shown.
    pub text: String,
    /// Its tokens; those of a stop string among them.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: Finish,
    /// What it took.
    pub statistics: Statistics,
}

/// A text whose request has been checked; [`Telling::run`] tells it.
#[derive(Debug)]
pub struct Telling<'a, 'p> {
    pipeline: &'p Pipeline,
    session: &'a mut Session<'p>,
    speculation: &'a mut Speculation,
    prompt: Vec<u32>,
    fed: usize, // tokens of the prompt that the session holds already
    options: GenerateOptions,
    stop: StopStrings,
}

impl<'a, 'p> Telling<'a, 'p> {
    pub(crate) fn new(
        pipeline: &'p Pipeline,
        session: &'a mut Session<'p>,
        request: Request<'_>,
        speculation: &'a mut Speculation,
    ) -> Result<Self> {
        let stop = StopStrings::new(request.stop)?;
        let options = pipeline.generate_options(request.max_new_tokens, request.sampling);
        session.set_confidence_exit(None)?;
        session.set_exit_layer(request.exit_layer)?;
        session.set_confidence_exit(request.confidence)?;
        let prompt = request.prompt.to_vec();
        let held = session.tokens().iter().zip(&prompt).take_while(|(held, given)| held == given).count();
        // Something has to be run, so that there are logits.
        let fed = held.min(prompt.len().saturating_sub(1));
        session.truncate(fed);
        check(session, &prompt[fed..], &options, speculation)?;
        Ok(Self { pipeline, session, speculation, prompt, fed, options, stop })
    }

    /// Tells the text, handing on each piece as it becomes certain.
    ///
    /// # Errors
    /// If the model's logits are not finite, or it gives a token that the tokenizer does not know.
    pub fn run(self, on_piece: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>) -> Result<Told> {
        let Self { pipeline, session, speculation, prompt, fed, options, stop } = self;
        let decoder = pipeline.tokenizer().stream_after(&prompt)?;
        let mut page = Page { stop, text: String::new(), finish: None, on_piece };
        let (mut decoder, mut failed) = (decoder, None);
        let mut origin = Origin::Chosen;
        let found = generate(session, &prompt[fed..], &options, speculation, &mut |token, how| {
            origin = how;
            match decoder.push(token) {
                Ok(text) => page.write(text, how),
                Err(error) => {
                    failed = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        if page.finish.is_none() {
            page.end(decoder.finish(), origin);
        }
        let Page { text, finish, .. } = page;
        let finish = finish.unwrap_or(match found.reason {
            StopReason::StopToken => Finish::StopToken,
            StopReason::Length => Finish::Length,
            StopReason::ContextFull => Finish::ContextFull,
            StopReason::Callback => Finish::Reader,
        });
        Ok(Told { text, tokens: found.tokens, finish, statistics: found.statistics })
    }
}

/// What has been shown, and to whom.
struct Page<'f> {
    stop: StopStrings,
    text: String,
    finish: Option<Finish>,
    on_piece: &'f mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
}

impl Page<'_> {
    fn write(&mut self, text: String, origin: Origin) -> ControlFlow<()> {
        let Shown { parts, stopped } = self.stop.push(text, origin);
        self.show(&parts)?;
        match stopped {
            None => ControlFlow::Continue(()),
            Some(stop) => {
                self.finish = Some(Finish::StopString(stop));
                ControlFlow::Break(())
            }
        }
    }

    /// The tail of the text, and what was held back in vain.
    fn end(&mut self, text: String, origin: Origin) {
        if self.write(text, origin).is_continue() {
            let held = self.stop.finish();
            let _ = self.show(&held); // a reader who leaves now has all but the end
        }
    }

    fn show(&mut self, parts: &[(String, Origin)]) -> ControlFlow<()> {
        for (text, origin) in parts {
            self.text.push_str(text);
            if (self.on_piece)(Piece { text, origin: *origin }).is_break() {
                self.finish = Some(Finish::Reader);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}
