//! Many texts at once, as text: the engine's scheduler, and a transcript of each text.

use crate::text_generation::{Finish, Heard, Transcript};
use crate::{Pipeline, Result};
use offramp_engine::{
    Logprobs, NewToken, Progressed, Request, Scheduler, SchedulerOptions, Statistics, TextId,
};
use std::collections::HashMap;

/// Runs many texts over one pipeline. A text is the same whoever runs beside it.
#[derive(Debug)]
pub struct TextScheduler<'p> {
    pipeline: &'p Pipeline,
    scheduler: Scheduler,
    transcripts: HashMap<TextId, Transcript<'p>>,
}

/// What a step brought for one text.
#[derive(Debug)]
pub struct TextProgress {
    /// The text.
    pub id: TextId,
    /// The tokens that came.
    pub tokens: Vec<NewToken>,
    /// For each of them, the part of the text that is certain after it; often empty.
    pub texts: Vec<String>,
    /// What was held back until the end of the text.
    pub tail: String,
    /// Log-probabilities of the next tokens of the prompt, where they were asked for.
    pub prompt_logprobs: Vec<Logprobs>,
    /// How the text ended, once it has.
    pub ended: Option<Result<Ended>>,
}

/// A text that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub finish: Finish,
    /// What it took.
    pub statistics: Statistics,
}

impl<'p> TextScheduler<'p> {
    /// One without any texts.
    ///
    /// # Errors
    /// If the memory has no space for so many positions.
    pub fn new(pipeline: &'p Pipeline, options: SchedulerOptions) -> Result<Self> {
        let scheduler = Scheduler::new(pipeline.model(), options)?;
        Ok(Self { pipeline, scheduler, transcripts: HashMap::new() })
    }

    /// Adds a text that ends before any of the strings in `stop`; it joins with a later step.
    ///
    /// # Errors
    /// If it can never run, a stop string is empty, or a token is unknown to the tokenizer.
    pub fn add(&mut self, request: Request, stop: &[String]) -> Result<TextId> {
        let transcript = Transcript::new(self.pipeline, &request.prompt, stop)?;
        let id = self.scheduler.add(request)?;
        self.transcripts.insert(id, transcript);
        Ok(id)
    }

    /// Takes a text out, whether it runs or waits.
    pub fn remove(&mut self, id: TextId) {
        self.transcripts.remove(&id);
        self.scheduler.remove(id);
    }

    /// The tokens' scheduler.
    pub fn scheduler(&self) -> &Scheduler {
        &self.scheduler
    }

    /// Takes one step of all texts, and returns what came of each.
    pub fn step(&mut self) -> Vec<TextProgress> {
        let found = self.scheduler.step();
        found.into_iter().filter_map(|found| self.hear(found)).collect()
    }

    /// Turns the tokens of a step into text.
    fn hear(&mut self, found: Progressed) -> Option<TextProgress> {
        let Progressed { id, mut tokens, prompt_logprobs, ended } = found;
        let mut transcript = self.transcripts.remove(&id)?;
        let reason = ended.as_ref().and_then(|ended| ended.as_ref().ok()).map(|ended| ended.reason);
        let (heard, ended) = match (transcript.hear(&tokens, reason), ended) {
            (Err(error), _) => {
                self.scheduler.remove(id);
                (Heard::default(), Some(Err(error)))
            }
            (Ok(heard), Some(Err(error))) => (heard, Some(Err(error.into()))),
            (Ok(mut heard), ended) => {
                // At a stop string, the scheduler still runs the text.
                let completion = ended.and_then(std::result::Result::ok);
                let completion = |id| completion.or_else(|| self.scheduler.remove(id));
                let ended = heard.finish.take().map(|finish| {
                    let statistics = completion(id).map(|completion| completion.statistics);
                    Ok(Ended { finish, statistics: statistics.unwrap_or_default() })
                });
                (heard, ended)
            }
        };
        let Heard { texts, tail, .. } = heard;
        tokens.truncate(texts.len());
        if ended.is_none() {
            self.transcripts.insert(id, transcript);
        }
        Some(TextProgress { id, tokens, texts, tail, prompt_logprobs, ended })
    }
}
