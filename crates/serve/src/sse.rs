//! Replies that come piece by piece, as server-sent events.

use crate::answers::Answers;
use crate::error::{ApiError, ErrorBody};
use crate::worker::Event;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

/// A comment is sent after so long without a token, so that nobody takes a long prompt for a dead server.
const PING: Duration = Duration::from_secs(2);

/// One event of a stream.
#[derive(Debug)]
pub(crate) struct Frame {
    name: Option<&'static str>,
    data: String,
}

impl Frame {
    /// A chunk.
    pub(crate) fn of(chunk: &impl Serialize) -> Self {
        Self { name: None, data: json(chunk) }
    }

    /// A chunk of a named event.
    pub(crate) fn named(name: &'static str, chunk: &impl Serialize) -> Self {
        Self { name: Some(name), data: json(chunk) }
    }

    /// The last one.
    pub(crate) fn done() -> Self {
        Self { name: None, data: "[DONE]".to_owned() }
    }
}

fn json(chunk: &impl Serialize) -> String {
    // Our chunks are structs of strings and numbers.
    serde_json::to_string(chunk).unwrap_or_default()
}

/// Writes what comes of texts as the chunks of one endpoint.
pub(crate) trait Chunks: Send + 'static {
    /// Before the first token.
    fn begin(&mut self) -> Vec<Frame> {
        Vec::new()
    }

    /// What a step brought, or the end of a text.
    fn chunk(&mut self, index: usize, event: Event) -> Vec<Frame>;

    /// After the last text has ended.
    fn end(&mut self) -> Vec<Frame>;

    /// In place of the rest.
    fn fail(&mut self, error: &ErrorBody) -> Vec<Frame> {
        vec![Frame::named("error", error)]
    }
}

/// A reply in progress. When it is dropped, the client has left, and its texts stop.
struct Streaming<C> {
    answers: Answers,
    chunks: C,
    frames: VecDeque<Frame>,
    over: bool,
}

/// Streams texts until all have ended.
pub(crate) fn stream(answers: Answers, mut chunks: impl Chunks) -> Response {
    let frames = chunks.begin().into();
    let streaming = Streaming { answers, chunks, frames, over: false };
    let events = stream::unfold(streaming, |mut streaming| async move {
        let frame = streaming.next().await?;
        let event = sse::Event::default().data(frame.data);
        let event = if let Some(name) = frame.name { event.event(name) } else { event };
        Some((Ok::<_, Infallible>(event), streaming))
    });
    let pings = KeepAlive::new().interval(PING).text("ping");
    let mut response = Sse::new(events).keep_alive(pings).into_response();
    let headers = response.headers_mut();
    // Proxies must not hold tokens back.
    headers.insert("x-accel-buffering", axum::http::HeaderValue::from_static("no"));
    response
}

impl<C: Chunks> Streaming<C> {
    async fn next(&mut self) -> Option<Frame> {
        while self.frames.is_empty() && !self.over {
            match self.answers.next().await {
                Ok(Some((index, event))) => self.frames.extend(self.chunks.chunk(index, event)),
                Ok(None) => {
                    self.over = true;
                    self.frames.extend(self.chunks.end());
                }
                Err(error) => self.fail(&error),
            }
        }
        self.frames.pop_front()
    }

    fn fail(&mut self, error: &ApiError) {
        self.over = true;
        self.frames.extend(self.chunks.fail(&error.body()));
    }
}
