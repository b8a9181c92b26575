//! The thread that runs a model's texts: those of all Python threads share its steps.

use offramp_engine::{Logprobs, NewToken, Request, SchedulerOptions, TextId};
use offramp_pipeline::{Ended, Pipeline, TextProgress, TextScheduler};
use pyo3::exceptions::PyRuntimeError;
use pyo3::{PyResult, Python};
use std::collections::HashMap;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

/// How often a caller that waits looks for Ctrl-C.
const LOOK: Duration = Duration::from_millis(20);

/// What a step brought for one text.
#[derive(Debug)]
pub(crate) enum Event {
    /// More of it: for each token, the text that is certain after it.
    More { tokens: Vec<(NewToken, String)>, prompt_logprobs: Vec<Logprobs> },
    /// Its end, and the text that was held back.
    Ended(Box<Ended>, String),
    /// Why it cannot go on.
    Failed(Box<offramp_pipeline::Error>),
}

/// A text that is asked for.
struct Job {
    request: Request,
    stop: Vec<String>,
    events: Sender<Event>,
    wanted: Weak<()>,
}

/// The thread, as callers see it. It ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    jobs: Sender<Job>,
}

/// A text under way. Dropping it takes the text out within one step.
#[derive(Debug)]
pub(crate) struct Listener {
    events: Mutex<Receiver<Event>>,
    _wanted: Arc<()>,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// If there is no memory for the texts' keys and values, or the system gives no thread.
    pub(crate) fn start(
        pipeline: Arc<Pipeline>,
        options: SchedulerOptions,
    ) -> std::io::Result<Result<Self, offramp_pipeline::Error>> {
        let (jobs, receiver) = mpsc::channel();
        let (started, start) = mpsc::sync_channel(1);
        let work = move || {
            let texts = match TextScheduler::new(&pipeline, options) {
                Ok(texts) => texts,
                Err(error) => return drop(started.send(Err(error))),
            };
            let _ = started.send(Ok(()));
            Texts { texts, listening: HashMap::new() }.run(&receiver);
        };
        thread::Builder::new().name("offramp".to_owned()).spawn(work)?;
        let ready = start.recv().map_err(|_| std::io::Error::other("the model's thread ended at once"))?;
        Ok(ready.map(|()| Self { jobs }))
    }

    /// Adds a text, which ends before any of the strings in `stop`.
    pub(crate) fn add(&self, request: Request, stop: &[String]) -> PyResult<Listener> {
        let (sender, events) = mpsc::channel();
        let wanted = Arc::new(());
        let job = Job { request, stop: stop.to_vec(), events: sender, wanted: Arc::downgrade(&wanted) };
        self.jobs.send(job).map_err(|_| gone())?;
        Ok(Listener { events: Mutex::new(events), _wanted: wanted })
    }
}

impl Listener {
    /// Waits for the next event, while other Python threads run.
    ///
    /// # Errors
    /// What a signal raises, such as `KeyboardInterrupt`.
    pub(crate) fn next(&self, py: Python<'_>) -> PyResult<Event> {
        loop {
            match py.detach(|| self.wait()) {
                Ok(event) => return Ok(event),
                Err(RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(RecvTimeoutError::Disconnected) => return Err(gone()),
            }
        }
    }

    fn wait(&self) -> Result<Event, RecvTimeoutError> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(LOOK)
    }
}

fn gone() -> pyo3::PyErr {
    PyRuntimeError::new_err("the model's thread has ended: a fault in offramp itself, please report it")
}

/// The thread's own state.
struct Texts<'p> {
    texts: TextScheduler<'p>,
    listening: HashMap<TextId, (Sender<Event>, Weak<()>)>,
}

impl Texts<'_> {
    /// Works until nobody can ask for anything any more.
    fn run(&mut self, jobs: &Receiver<Job>) {
        loop {
            if self.texts.scheduler().is_idle() {
                match jobs.recv() {
                    Ok(job) => self.take(job),
                    Err(_) => return,
                }
            }
            while let Ok(job) = jobs.try_recv() {
                self.take(job);
            }
            self.forget_those_who_left();
            for progress in self.texts.step() {
                self.pass_on(progress);
            }
        }
    }

    fn take(&mut self, Job { request, stop, events, wanted }: Job) {
        match self.texts.add(request, &stop) {
            Ok(id) => drop(self.listening.insert(id, (events, wanted))),
            Err(error) => drop(events.send(Event::Failed(Box::new(error)))),
        }
    }

    fn forget_those_who_left(&mut self) {
        let texts = &mut self.texts;
        self.listening.retain(|&id, (_, wanted)| {
            let stays = wanted.strong_count() > 0;
            if !stays {
                texts.remove(id);
            }
            stays
        });
    }

    fn pass_on(&mut self, progress: TextProgress) {
        let TextProgress { id, tokens, texts, tail, prompt_logprobs, ended } = progress;
        let Some((events, _)) = self.listening.get(&id) else { return };
        let tokens = tokens.into_iter().zip(texts).collect();
        let _ = events.send(Event::More { tokens, prompt_logprobs });
        if let Some(ended) = ended {
            let _ = events.send(match ended {
                Ok(ended) => Event::Ended(Box::new(ended), tail),
                Err(error) => Event::Failed(Box::new(error)),
            });
            self.listening.remove(&id);
        }
    }
}
