//! A text that is generated: tokens become text, piece by piece, until something ends it.

use crate::stop_strings::{Shown, StopStrings};
use crate::{Pipeline, Result};
use offramp_engine::{
    Completion, ConfidenceExit, Generation, NewToken, Origin, SamplingOptions, Session, Speculation,
    Statistics, StopReason, Workspace,
};
use offramp_text::StreamDecoder;
use std::ops::ControlFlow;

/// What is to be generated.
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Never empty, and never half a character.
    pub text: String,
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
    /// The reader stopped it.
    Reader,
}

/// What was generated.
#[derive(Clone, Debug)]
pub struct GeneratedText {
    /// The new text, as it was shown.
    pub text: String,
    /// Its tokens; those of a stop string among them.
    pub tokens: Vec<u32>,
    /// Why there are no more.
    pub finish: Finish,
    /// What it took.
    pub statistics: Statistics,
}

/// A text whose request has been checked, and which is asked for its next step.
#[derive(Debug)]
pub struct TextGeneration<'p> {
    generation: Generation,
    transcript: Transcript<'p>,
    finish: Option<Finish>,
}

/// The text of one row of tokens, as far as it is certain: what a [`TextGeneration`] shows of its own, and whoever runs
/// many texts at once of each.
#[derive(Debug)]
pub struct Transcript<'p> {
    decoder: Option<StreamDecoder<'p>>, // none once the text has ended
    stop: StopStrings,
    text: String,
    origin: Origin,
}

/// What a token adds to a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// What is certain now.
    pub pieces: Vec<Piece>,
    /// The stop string that ended the text.
    pub stopped: Option<String>,
}

impl<'p> TextGeneration<'p> {
    pub(crate) fn new(
        pipeline: &'p Pipeline,
        mut session: Session,
        request: &Request<'_>,
        speculation: Speculation,
    ) -> Result<Self> {
        let transcript = Transcript::new(pipeline, request.prompt, request.stop)?;
        let options = pipeline.generate_options(request.max_new_tokens, request.sampling);
        session.set_confidence_exit(None)?;
        session.set_exit_layer(request.exit_layer)?;
        session.set_confidence_exit(request.confidence.clone())?;
        let prompt = request.prompt;
        let held = session.tokens().iter().zip(prompt).take_while(|(held, given)| held == given).count();
        // Something has to be run, so that there are logits.
        let fed = held.min(prompt.len().saturating_sub(1));
        session.truncate(fed);
        let generation = Generation::new(session, &prompt[fed..], &options, speculation)?;
        Ok(Self { generation, transcript, finish: None })
    }

    /// Takes the next step and hands on each piece that becomes certain; whether more will come.
    ///
    /// # Errors
    /// If the model's logits are not finite, or it gives a token that the tokenizer does not know.
    pub fn step(
        &mut self,
        workspace: &mut Workspace,
        on_piece: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<bool> {
        let tokens = self.generation.step(workspace)?.to_vec();
        for (index, token) in tokens.into_iter().enumerate() {
            let Added { pieces, stopped } = self.transcript.push(token)?;
            let left = pieces.into_iter().any(|piece| on_piece(piece).is_break());
            self.finish = match stopped {
                _ if left => Some(Finish::Reader),
                stopped => stopped.map(Finish::StopString),
            };
            if self.finish.is_some() {
                self.generation.stop(index + 1);
                return Ok(false);
            }
        }
        let Some(reason) = self.generation.finished() else { return Ok(true) };
        let Added { pieces, stopped } = self.transcript.end();
        // A reader who leaves now has all but the end.
        let left = pieces.into_iter().any(|piece| on_piece(piece).is_break());
        self.finish = Some(match (left, stopped, reason) {
            (true, ..) | (_, None, StopReason::Stopped) => Finish::Reader,
            (_, Some(stop), _) => Finish::StopString(stop),
            (_, _, StopReason::StopToken) => Finish::StopToken,
            (_, _, StopReason::Length) => Finish::Length,
            (_, _, StopReason::ContextFull) => Finish::ContextFull,
        });
        Ok(false)
    }

    /// Takes all steps.
    ///
    /// # Errors
    /// As [`TextGeneration::step`].
    pub fn run(
        &mut self,
        workspace: &mut Workspace,
        on_piece: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<()> {
        while self.step(workspace, on_piece)? {}
        Ok(())
    }

    /// What was generated, with the session and what the speculation learnt, for the next text.
    pub fn into_parts(self) -> (GeneratedText, Session, Speculation) {
        let (Completion { tokens, statistics, .. }, session, speculation) = self.generation.into_parts();
        let finish = self.finish.unwrap_or(Finish::Reader);
        (GeneratedText { text: self.transcript.text, tokens, finish, statistics }, session, speculation)
    }
}

impl<'p> Transcript<'p> {
    /// A text after `prompt`, which ends before any of the texts in `stop`.
    ///
    /// # Errors
    /// If a stop string is empty, or the tokenizer does not know a token of the prompt.
    pub fn new(pipeline: &'p Pipeline, prompt: &[u32], stop: &[String]) -> Result<Self> {
        Ok(Self {
            stop: StopStrings::new(stop)?,
            decoder: Some(pipeline.tokenizer().stream_after(prompt)?),
            text: String::new(),
            origin: Origin::Chosen,
        })
    }

    /// Adds a token.
    ///
    /// # Errors
    /// If the tokenizer does not know it.
    pub fn push(&mut self, token: NewToken) -> Result<Added> {
        let Some(decoder) = &mut self.decoder else { return Ok(Added::default()) };
        self.origin = token.origin;
        let text = decoder.push(token.id)?;
        Ok(self.add(text))
    }

    /// Ends the text: its tail, and what was held back in vain.
    pub fn end(&mut self) -> Added {
        let Some(decoder) = self.decoder.take() else { return Added::default() };
        let mut added = self.add(decoder.finish());
        if added.stopped.is_none() {
            let held = self.stop.finish();
            added.pieces.extend(self.show(held));
        }
        added
    }

    /// The text so far.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn add(&mut self, text: String) -> Added {
        let Shown { parts, stopped } = self.stop.push(text, self.origin);
        let pieces = self.show(parts);
        if stopped.is_some() {
            self.decoder = None;
        }
        Added { pieces, stopped }
    }

    fn show(&mut self, parts: Vec<(String, Origin)>) -> Vec<Piece> {
        parts.iter().for_each(|(text, _)| self.text.push_str(text));
        parts.into_iter().map(|(text, origin)| Piece { text, origin }).collect()
    }
}
