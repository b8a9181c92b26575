//! Texts on their way from the model's thread to a reply.

use crate::app::App;
use crate::error::{ApiError, Result};
use crate::worker::{Command, Event, Job};
use axum::http::StatusCode;
use offramp_engine::{Logprobs, NewToken, Request};
use offramp_pipeline::Ended;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// What comes of the texts of one request. Whoever drops it leaves, and the texts with it.
#[derive(Debug)]
pub(crate) struct Answers {
    receiver: UnboundedReceiver<(usize, Event)>,
    open: usize,
}

/// A text that is complete.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) tokens: Vec<NewToken>,
    pub(crate) prompt_logprobs: Vec<Logprobs>,
    pub(crate) ended: Ended,
}

impl App {
    /// Hands texts to the model's thread.
    ///
    /// # Errors
    /// If the server is ending, or there is no place for so many.
    pub(crate) fn submit(&self, requests: Vec<Request>, stop: &[String]) -> Result<Answers> {
        if !self.shared.is_alive() || self.shared.is_closing() {
            let why = self.shared.not_ready().unwrap_or_default();
            return Err(ApiError::status(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        let (texts, most) = (requests.len(), self.most_places);
        if texts > most {
            let message =
                format!("the request asks for {texts} texts, and the server takes {most} at most: split it");
            return Err(ApiError::invalid("prompt", message));
        }
        let places =
            Arc::clone(&self.places).try_acquire_many_owned(u32::try_from(texts).unwrap_or(u32::MAX));
        let Ok(mut places) = places else {
            self.metrics.refused();
            let message =
                format!("{most} texts run or wait, and there is no place for {texts} more: try again soon");
            let error = ApiError::status(StatusCode::TOO_MANY_REQUESTS, message);
            return Err(error.with_code("queue_full"));
        };
        let (listener, receiver) = unbounded_channel();
        for (index, request) in requests.into_iter().enumerate() {
            let Some(place) = places.split(1) else { break };
            let (stop, listener, arrived) = (stop.to_vec(), listener.clone(), Instant::now());
            let job = Job { request, stop, index, listener, place, arrived };
            let _ = self.commands.send(Command::Text(Box::new(job)));
        }
        Ok(Answers { receiver, open: texts })
    }
}

impl Answers {
    /// What comes next; `None` once all texts have ended.
    ///
    /// # Errors
    /// If a text failed, or the model's thread has ended.
    pub(crate) async fn next(&mut self) -> Result<Option<(usize, Event)>> {
        if self.open == 0 {
            return Ok(None);
        }
        match self.receiver.recv().await {
            Some((_, Event::Failed(error))) => Err((*error).into()),
            Some((index, event)) => {
                self.open -= usize::from(matches!(event, Event::Ended(_)));
                Ok(Some((index, event)))
            }
            None => {
                let message = "the model's thread has ended: start the server again";
                Err(ApiError::status(StatusCode::INTERNAL_SERVER_ERROR, message))
            }
        }
    }

    /// All texts, whole, in their order.
    ///
    /// # Errors
    /// As [`Answers::next`].
    pub(crate) async fn collect(mut self) -> Result<Vec<Answer>> {
        let mut parts: Vec<(String, Vec<NewToken>, Vec<Logprobs>)> = vec![Default::default(); self.open];
        let mut ends: Vec<Option<Ended>> = parts.iter().map(|_| None).collect();
        while let Some((index, event)) = self.next().await? {
            match event {
                Event::More { text, tokens, prompt_logprobs } => {
                    parts[index].0.push_str(&text);
                    parts[index].1.extend(tokens);
                    parts[index].2.extend(prompt_logprobs);
                }
                Event::Ended(ended) => ends[index] = Some(ended),
                Event::Failed(error) => return Err((*error).into()),
            }
        }
        let whole = parts.into_iter().zip(ends);
        Ok(whole
            .filter_map(|((text, tokens, prompt_logprobs), ended)| {
                Some(Answer { text, tokens, prompt_logprobs, ended: ended? })
            })
            .collect())
    }
}
