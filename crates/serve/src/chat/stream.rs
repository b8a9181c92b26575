//! An answer of a chat, piece by piece.

use super::{ChatChoice, Checked, Delta, IndexedCall};
use crate::app::{App, Head};
use crate::logprobs::{self, ChatLogprobs};
use crate::sse::{Chunks, Frame};
use crate::usage::{Timings, Usage, finish};
use crate::worker::Event;
use offramp_engine::{NewToken, Statistics};
use std::sync::Arc;

/// The chunks of one request.
pub(super) struct ChatChunks {
    app: Arc<App>,
    head: Head,
    checked: Checked,
    answers: Vec<AnswerSoFar>,
    ended: Vec<Statistics>,
    depths: Vec<usize>,
}

/// How far one answer has come.
#[derive(Clone, Debug, Default)]
struct AnswerSoFar {
    text: String,
    /// Bytes of the text that were sent. The rest may become a call of a tool.
    sent: usize,
    /// Tokens whose text has not been sent.
    held: Vec<NewToken>,
    tokens: usize,
}

impl ChatChunks {
    pub(super) fn new(app: Arc<App>, head: Head, checked: Checked) -> Self {
        let answers = vec![AnswerSoFar::default(); checked.n];
        Self { app, head, checked, answers, ended: Vec::new(), depths: Vec::new() }
    }

    fn usage(&self) -> Usage {
        let tokens = self.answers.iter().map(|answer| answer.tokens).sum();
        let cached = self.ended.iter().map(|statistics| statistics.cached_tokens).max().unwrap_or(0);
        Usage::new(self.checked.prompt_tokens, tokens, cached)
    }

    fn frame(&self, choice: Option<ChatChoice>) -> Frame {
        let mut chunk = self.checked.completion(&self.app, self.head.clone(), "chat.completion.chunk");
        chunk.choices = choice.into_iter().collect();
        chunk.usage = self.checked.continuous_usage.then(|| self.usage());
        Frame::of(&chunk)
    }

    /// A chunk of one answer. Tokens that were held back go with it.
    fn piece(&mut self, index: usize, delta: Delta) -> ChatChoice {
        let tokenizer = self.app.pipeline.tokenizer();
        let held = std::mem::take(&mut self.answers[index].held);
        let checked = &self.checked;
        ChatChoice {
            index,
            delta: Some(delta),
            logprobs: checked.logprobs.then(|| ChatLogprobs::of(tokenizer, &held)),
            depths: checked.asked.return_depths.then(|| logprobs::depths(tokenizer, &held)),
            ..ChatChoice::default()
        }
    }

    /// The last chunk of one answer: what was held back is a call or text now.
    fn last(&mut self, index: usize, reason: &'static str, stop_reason: Option<String>) -> Vec<Frame> {
        let AnswerSoFar { text, sent, .. } = &mut self.answers[index];
        let (text, sent) = (std::mem::take(text), *sent);
        let (content, calls) = match self.checked.tools {
            Some(format) => format.read(&text),
            None => (text, Vec::new()),
        };
        let content = content[sent..].to_owned();
        let called = !calls.is_empty();
        let calls = calls.into_iter().enumerate().map(|(index, call)| IndexedCall { index, call });
        let delta = Delta {
            role: None,
            content: (!content.is_empty()).then_some(content),
            tool_calls: calls.collect(),
        };
        let choice = self.piece(index, delta);
        let finish_reason = Some(if called { "tool_calls" } else { reason });
        vec![self.frame(Some(ChatChoice { finish_reason, stop_reason, ..choice }))]
    }
}

impl Chunks for ChatChunks {
    fn begin(&mut self) -> Vec<Frame> {
        let role = || Delta { role: Some("assistant"), content: Some(String::new()), ..Delta::default() };
        let begin = |index| ChatChoice { index, delta: Some(role()), ..ChatChoice::default() };
        (0..self.checked.n).map(|index| self.frame(Some(begin(index)))).collect()
    }

    fn chunk(&mut self, index: usize, event: Event) -> Vec<Frame> {
        match event {
            Event::More { text, tokens, .. } => {
                self.depths.extend(tokens.iter().map(|token| token.depth));
                let answer = &mut self.answers[index];
                answer.tokens += tokens.len();
                answer.held.extend(tokens);
                answer.text.push_str(&text);
                let certain =
                    self.checked.tools.map_or(answer.text.len(), |format| format.certain(&answer.text));
                if certain <= answer.sent {
                    return Vec::new();
                }
                let content = answer.text[answer.sent..certain].to_owned();
                answer.sent = certain;
                let delta = Delta { content: Some(content), ..Delta::default() };
                let choice = self.piece(index, delta);
                vec![self.frame(Some(choice))]
            }
            Event::Ended(ended) => {
                self.ended.push(ended.statistics);
                let (reason, stop_reason) = finish(&ended.finish);
                self.last(index, reason, stop_reason)
            }
            Event::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.checked.include_usage {
            let mut chunk = self.checked.completion(&self.app, self.head.clone(), "chat.completion.chunk");
            chunk.usage = Some(self.usage());
            chunk.timings = Some(Timings::of(&self.ended, self.checked.asked.exit_layer, &self.depths));
            frames.push(Frame::of(&chunk));
        }
        frames.push(Frame::done());
        frames
    }
}
