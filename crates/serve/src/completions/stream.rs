//! A completion, piece by piece.

use super::{Checked, CompletionChoice};
use crate::app::{App, Head};
use crate::logprobs::{self, CompletionLogprobs};
use crate::sse::{Chunks, Frame};
use crate::usage::{Timings, Usage, finish};
use crate::worker::Event;
use offramp_engine::{Logprobs, NewToken, Statistics};
use std::sync::Arc;

/// The chunks of one request.
pub(super) struct CompletionChunks {
    app: Arc<App>,
    head: Head,
    checked: Checked,
    texts: Vec<TextSoFar>,
    ended: Vec<Statistics>,
    depths: Vec<usize>,
}

/// How far one text has come.
#[derive(Clone, Debug, Default)]
struct TextSoFar {
    /// Tokens whose text has not been sent.
    held: Vec<NewToken>,
    prompt_logprobs: Vec<Logprobs>,
    /// Characters sent, or `None` before the first chunk.
    offset: Option<usize>,
    tokens: usize,
}

impl CompletionChunks {
    pub(super) fn new(app: Arc<App>, head: Head, checked: Checked) -> Self {
        let texts = vec![TextSoFar::default(); checked.prompts.len() * checked.n];
        Self { app, head, checked, texts, ended: Vec::new(), depths: Vec::new() }
    }

    fn usage(&self) -> Usage {
        let tokens = self.texts.iter().map(|text| text.tokens).sum();
        let cached = self.ended.iter().map(|statistics| statistics.cached_tokens).sum();
        Usage::new(self.checked.prompt_tokens(), tokens, cached)
    }

    /// A chunk of one text. What was held back goes with it.
    fn piece(&mut self, index: usize, text: String) -> CompletionChoice {
        let tokenizer = self.app.pipeline.tokenizer();
        let checked = &self.checked;
        let so_far = &mut self.texts[index];
        let held = std::mem::take(&mut so_far.held);
        let prompt = &checked.prompts[index / checked.n];
        let begins = so_far.offset.is_none();
        let (mut found, offset) = match so_far.offset {
            Some(offset) => (CompletionLogprobs::default(), offset),
            None if checked.logprobs => checked.begin_logprobs(&self.app, prompt, &so_far.prompt_logprobs),
            None => Default::default(),
        };
        let mut offset = offset;
        if checked.logprobs {
            for token in &held {
                offset = found.push(tokenizer, token.id, token.logprobs.as_ref(), offset);
            }
        }
        so_far.offset = Some(offset);
        let echoed = if begins && checked.echo { prompt.text.as_str() } else { "" };
        CompletionChoice {
            index,
            text: format!("{echoed}{text}"),
            logprobs: checked.logprobs.then_some(found),
            finish_reason: None,
            stop_reason: None,
            depths: checked.asked.return_depths.then(|| logprobs::depths(tokenizer, &held)),
        }
    }

    fn frame(&self, choice: CompletionChoice) -> Frame {
        let mut chunk = self.checked.chunk(&self.app, self.head.clone(), vec![choice]);
        chunk.usage = self.checked.continuous_usage.then(|| self.usage());
        Frame::of(&chunk)
    }
}

impl Chunks for CompletionChunks {
    fn chunk(&mut self, index: usize, event: Event) -> Vec<Frame> {
        match event {
            Event::More { text, tokens, prompt_logprobs } => {
                self.depths.extend(tokens.iter().map(|token| token.depth));
                let so_far = &mut self.texts[index];
                so_far.tokens += tokens.len();
                so_far.held.extend(tokens);
                so_far.prompt_logprobs.extend(prompt_logprobs);
                if text.is_empty() {
                    return Vec::new();
                }
                let choice = self.piece(index, text);
                vec![self.frame(choice)]
            }
            Event::Ended(ended) => {
                self.ended.push(ended.statistics);
                let (finish_reason, stop_reason) = finish(&ended.finish);
                let choice = self.piece(index, String::new());
                let choice = CompletionChoice { finish_reason: Some(finish_reason), stop_reason, ..choice };
                vec![self.frame(choice)]
            }
            Event::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.checked.include_usage {
            let mut chunk = self.checked.chunk(&self.app, self.head.clone(), Vec::new());
            chunk.usage = Some(self.usage());
            chunk.timings = Some(Timings::of(&self.ended, self.checked.asked.exit_layer, &self.depths));
            frames.push(Frame::of(&chunk));
        }
        frames.push(Frame::done());
        frames
    }
}
