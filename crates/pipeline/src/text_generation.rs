//! Generates a text: turns tokens into text, piece by piece, until the text ends.

use crate::stop_strings::{Shown, StopStrings};
use crate::{Pipeline, Result};
use offramp_engine::{
    Completion, ConfidenceExit, GenerateOptions, Generation, Logprobs, NewToken, Origin, SamplingOptions,
    Session, Speculation, Statistics, StopReason, Workspace,
};
use offramp_text::StreamDecoder;
use std::ops::ControlFlow;

/// What to generate.
#[derive(Clone, Debug)]
pub struct TextRequest<'a> {
    /// The token ids of the prompt.
    pub prompt: &'a [u32],
    /// The most new tokens.
    pub max_new_tokens: usize,
    /// The number of layers that run.
    pub exit_layer: usize,
    /// The policy of early exits, if any.
    pub confidence: Option<ConfidenceExit>,
    /// The sampling options.
    pub sampling: SamplingOptions,
    /// Strings at which the text ends. They are not shown.
    pub stop: &'a [String],
    /// Log-probabilities of each new token, and of so many of the most likely ones in its place.
    pub logprobs: Option<usize>,
}

/// A new part of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Never empty, and never half a character.
    pub text: String,
    /// The origin of the token that completed it.
    pub origin: Origin,
}

/// Why a text ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// A stop token was generated.
    StopToken,
    /// This stop string was generated.
    StopString(String),
    /// The limit of new tokens is reached.
    Length,
    /// The context is full.
    ContextFull,
    /// The reader stopped it.
    Reader,
}

/// The result.
#[derive(Clone, Debug)]
pub struct GeneratedText {
    /// The new text, as it was shown.
    pub text: String,
    /// Its tokens, with those of a stop string.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// How likely each of the tokens is, where that was asked for.
    pub logprobs: Vec<Logprobs>,
    /// Counts and times.
    pub statistics: Statistics,
}

/// A text that is being generated, one step at a time. Its request has been checked.
#[derive(Debug)]
pub struct TextGeneration<'p> {
    generation: Generation,
    transcript: Transcript<'p>,
    finish: Option<Finish>,
    logprobs: Vec<Logprobs>,
}

/// The certain text of one sequence of tokens. A [`TextGeneration`] has one; code that runs many texts at
/// once has one for each.
#[derive(Debug)]
pub struct Transcript<'p> {
    decoder: Option<StreamDecoder<'p>>, // none after the end of the text
    stop: StopStrings,
    text: String,
    origin: Origin,
}

/// What the tokens of a step add to a text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Heard {
    /// For each token, the part of the text that is certain after it; often empty. They are fewer than the
    /// tokens if a stop string ended the text before the last.
    pub texts: Vec<String>,
    /// What was held back until the end.
    pub tail: String,
    /// Why the text has ended, once it has.
    pub finish: Option<Finish>,
}

/// What a token adds to a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// The part of the text that is certain now.
    pub pieces: Vec<Piece>,
    /// The stop string that ended the text.
    pub stopped: Option<String>,
}

impl<'p> TextGeneration<'p> {
    pub(crate) fn new(
        pipeline: &'p Pipeline,
        mut session: Session,
        request: &TextRequest<'_>,
        speculation: Speculation,
    ) -> Result<Self> {
        let transcript = Transcript::new(pipeline, request.prompt, request.stop)?;
        let options = pipeline.generate_options(request.max_new_tokens, request.sampling);
        let options = GenerateOptions { logprobs: request.logprobs, ..options };
        session.set_confidence_exit(None)?;
        session.set_exit_layer(request.exit_layer)?;
        session.set_confidence_exit(request.confidence.clone())?;
        let prompt = request.prompt;
        let held = session.tokens().iter().zip(prompt).take_while(|(held, given)| held == given).count();
        // At least one token must be computed to get logits.
        let fed = held.min(prompt.len().saturating_sub(1));
        session.truncate(fed);
        let generation = Generation::new(session, &prompt[fed..], &options, speculation)?;
        Ok(Self { generation, transcript, finish: None, logprobs: Vec::new() })
    }

    /// Takes the next step and passes on each piece that becomes certain. Returns whether there will be more.
    ///
    /// # Errors
    /// If the model's logits are not finite, or a token is unknown to the tokenizer.
    pub fn step(
        &mut self,
        workspace: &mut Workspace,
        on_piece: &mut dyn FnMut(Piece) -> ControlFlow<()>,
    ) -> Result<bool> {
        let tokens = self.generation.step(workspace)?.to_vec();
        for (index, token) in tokens.into_iter().enumerate() {
            self.logprobs.extend(token.logprobs.clone());
            let Added { pieces, stopped } = self.transcript.push(&token)?;
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
        // A reader that leaves now has everything but the end.
        let left = pieces.into_iter().any(|piece| on_piece(piece).is_break());
        self.finish = Some(if left { Finish::Reader } else { Finish::of(stopped, reason) });
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

    /// The result, the session, and the speculation with what it learnt, for the next text.
    pub fn into_parts(self) -> (GeneratedText, Session, Speculation) {
        let (Completion { tokens, statistics, .. }, session, speculation) = self.generation.into_parts();
        let finish = self.finish.unwrap_or(Finish::Reader);
        let text = self.transcript.text;
        let found = GeneratedText { text, tokens, finish, logprobs: self.logprobs, statistics };
        (found, session, speculation)
    }
}

impl Finish {
    fn of(stopped: Option<String>, reason: StopReason) -> Self {
        match (stopped, reason) {
            (Some(stop), _) => Self::StopString(stop),
            (_, StopReason::StopToken) => Self::StopToken,
            (_, StopReason::Length) => Self::Length,
            (_, StopReason::ContextFull) => Self::ContextFull,
            (_, StopReason::Stopped) => Self::Reader,
        }
    }
}

impl<'p> Transcript<'p> {
    /// A text after `prompt` that ends before any of the strings in `stop`.
    ///
    /// # Errors
    /// If a stop string is empty, or a token of the prompt is unknown to the tokenizer.
    pub fn new(pipeline: &'p Pipeline, prompt: &[u32], stop: &[String]) -> Result<Self> {
        Ok(Self {
            stop: StopStrings::new(stop)?,
            decoder: Some(pipeline.tokenizer().stream_after(prompt)?),
            text: String::new(),
            origin: Origin::Chosen,
        })
    }

    /// Adds the tokens of a step; `reason` ends the text after them.
    ///
    /// # Errors
    /// If one is unknown to the tokenizer.
    pub fn hear(&mut self, tokens: &[NewToken], reason: Option<StopReason>) -> Result<Heard> {
        let mut heard = Heard::default();
        for token in tokens {
            let Added { pieces, stopped } = self.push(token)?;
            heard.texts.push(joined(pieces));
            heard.finish = stopped.map(Finish::StopString);
            if heard.finish.is_some() {
                return Ok(heard);
            }
        }
        if let Some(reason) = reason {
            let Added { pieces, stopped } = self.end();
            heard.tail = joined(pieces);
            heard.finish = Some(Finish::of(stopped, reason));
        }
        Ok(heard)
    }

    /// Adds a token.
    ///
    /// # Errors
    /// If it is unknown to the tokenizer.
    pub fn push(&mut self, token: &NewToken) -> Result<Added> {
        let Some(decoder) = &mut self.decoder else { return Ok(Added::default()) };
        self.origin = token.origin;
        let text = decoder.push(token.id)?;
        Ok(self.add(text))
    }

    /// Ends the text and returns its last part, with what was held back.
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

fn joined(pieces: Vec<Piece>) -> String {
    pieces.into_iter().map(|piece| piece.text).collect()
}
