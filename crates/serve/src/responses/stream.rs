//! A response, event by event.

use super::{Checked, Item, ResponseObject, message};
use crate::answers::Answer;
use crate::app::App;
use crate::error::ErrorBody;
use crate::sse::{Chunks, Frame};
use crate::worker::Event;
use offramp_engine::NewToken;
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// The events of one request.
pub(super) struct ResponseChunks {
    app: Arc<App>,
    checked: Checked,
    text: String,
    /// Bytes of the text that were sent.
    sent: usize,
    tokens: Vec<NewToken>,
    sequence: usize,
    whole: Option<ResponseObject>,
    opened: bool,
}

/// An event with its number.
#[derive(Serialize)]
struct Numbered<'a> {
    r#type: &'static str,
    sequence_number: usize,
    #[serde(flatten)]
    rest: &'a Value,
}

impl ResponseChunks {
    pub(super) fn new(app: Arc<App>, checked: Checked) -> Self {
        let (text, tokens) = (String::new(), Vec::new());
        Self { app, checked, text, sent: 0, tokens, sequence: 0, whole: None, opened: false }
    }

    fn event(&mut self, kind: &'static str, rest: &Value) -> Frame {
        let sequence_number = self.sequence;
        self.sequence += 1;
        Frame::named(kind, &Numbered { r#type: kind, sequence_number, rest })
    }

    fn item_id(&self) -> String {
        format!("msg_{}", self.checked.empty.id)
    }

    fn part(text: &str) -> Value {
        json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })
    }

    /// The message begins with its first text.
    fn open(&mut self) -> Vec<Frame> {
        if self.opened {
            return Vec::new();
        }
        self.opened = true;
        let item = message(&self.checked.empty.id, "in_progress", None);
        let part = json!({ "item_id": self.item_id(), "output_index": 0, "content_index": 0, "part": Self::part("") });
        vec![
            self.event("response.output_item.added", &json!({ "output_index": 0, "item": item })),
            self.event("response.content_part.added", &part),
        ]
    }

    fn delta(&mut self, until: usize) -> Vec<Frame> {
        if until <= self.sent {
            return Vec::new();
        }
        let mut frames = self.open();
        let delta = self.text[self.sent..until].to_owned();
        self.sent = until;
        let rest = json!({ "item_id": self.item_id(), "output_index": 0, "content_index": 0, "delta": delta, "logprobs": [] });
        frames.push(self.event("response.output_text.delta", &rest));
        frames
    }

    /// The message is whole.
    fn close(&mut self, index: usize, item: &Item) -> Vec<Frame> {
        let mut frames = Vec::new();
        if let Item::Message { content, .. } = item {
            let text =
                content.iter().map(|super::Part::OutputText { text, .. }| text.as_str()).collect::<String>();
            self.text.clone_from(&text);
            frames.extend(self.open());
            frames.extend(self.delta(text.len()));
            let at = |more: Value| {
                let mut rest =
                    json!({ "item_id": self.item_id(), "output_index": index, "content_index": 0 });
                if let (Some(rest), Value::Object(more)) = (rest.as_object_mut(), more) {
                    rest.extend(more);
                }
                rest
            };
            let (done, part) =
                (at(json!({ "text": text, "logprobs": [] })), at(json!({ "part": Self::part(&text) })));
            frames.push(self.event("response.output_text.done", &done));
            frames.push(self.event("response.content_part.done", &part));
        } else if let Item::FunctionCall { id, name, arguments, .. } = item {
            let rest = json!({ "output_index": index, "item": item });
            frames.push(self.event("response.output_item.added", &rest));
            let rest = json!({ "item_id": id, "output_index": index, "name": name, "arguments": arguments });
            frames.push(self.event("response.function_call_arguments.done", &rest));
        }
        frames.push(self.event("response.output_item.done", &json!({ "output_index": index, "item": item })));
        frames
    }
}

impl Chunks for ResponseChunks {
    fn begin(&mut self) -> Vec<Frame> {
        let response = json!({ "response": self.checked.empty });
        vec![self.event("response.created", &response), self.event("response.in_progress", &response)]
    }

    fn chunk(&mut self, _: usize, event: Event) -> Vec<Frame> {
        match event {
            Event::More { text, tokens, .. } => {
                self.text.push_str(&text);
                self.tokens.extend(tokens);
                let certain = self.checked.tools.map_or(self.text.len(), |format| format.certain(&self.text));
                self.delta(certain)
            }
            Event::Ended(ended) => {
                let (text, tokens) = (self.text.clone(), std::mem::take(&mut self.tokens));
                let answer = Answer { text, tokens, prompt_logprobs: Vec::new(), ended };
                let whole = self.checked.reply(&self.app, answer);
                let items = whole.output.clone();
                self.whole = Some(whole);
                items.iter().enumerate().flat_map(|(index, item)| self.close(index, item)).collect()
            }
            Event::Failed(_) => Vec::new(),
        }
    }

    fn end(&mut self) -> Vec<Frame> {
        let Some(whole) = self.whole.take() else { return Vec::new() };
        let kind = if whole.status == "completed" { "response.completed" } else { "response.incomplete" };
        vec![self.event(kind, &json!({ "response": whole }))]
    }

    fn fail(&mut self, error: &ErrorBody) -> Vec<Frame> {
        let detail = &error.error;
        let rest = json!({ "code": detail.code, "message": detail.message, "param": detail.param });
        vec![self.event("error", &rest)]
    }
}
