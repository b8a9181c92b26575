//! The thread that runs the model: it takes texts in between two steps, and passes on what each step brings.

use crate::metrics::Metrics;
use crate::state::Shared;
use offramp_engine::{
    ExitReader, ExitReading, Logprobs, NewToken, Request, SchedulerOptions, TextId, Workspace,
};
use offramp_pipeline::{Ended, Pipeline, TextProgress, TextScheduler};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedSender;

/// Takes what the exits say, a few positions at a time.
type ReadingsSender = UnboundedSender<Result<Vec<ExitReading>, String>>;

/// What the thread is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// A text.
    Text(Box<Job>),
    /// What the exits say of a text.
    Exits(Box<ExitReader>, ReadingsSender),
}

/// A text that is asked for, and who listens.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) stop: Vec<String>,
    /// Its place among the texts of one HTTP request.
    pub(crate) index: usize,
    pub(crate) listener: UnboundedSender<(usize, Event)>,
    /// Its place in the queue.
    pub(crate) place: OwnedSemaphorePermit,
    pub(crate) arrived: Instant,
}

/// What a listener hears.
#[derive(Debug)]
pub(crate) enum Event {
    /// More of a text; `text` may be empty.
    More { text: String, tokens: Vec<NewToken>, prompt_logprobs: Vec<Logprobs> },
    /// The end of a text.
    Ended(Ended),
    /// A text that cannot go on.
    Failed(Box<offramp_pipeline::Error>),
}

/// Who listens to a text that runs or waits.
struct Listening {
    index: usize,
    listener: UnboundedSender<(usize, Event)>,
    arrived: Instant,
    /// When the last token came.
    heard: Option<Instant>,
    _place: OwnedSemaphorePermit,
}

/// Starts the thread.
///
/// # Errors
/// If the memory has no space for the texts, or the system gives no thread.
pub(crate) fn start(
    pipeline: Arc<Pipeline>,
    options: SchedulerOptions,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
) -> crate::Result<mpsc::Sender<Command>> {
    let (sender, receiver) = mpsc::channel();
    let (started, start) = mpsc::channel();
    let work = move || {
        let texts = match TextScheduler::new(&pipeline, options) {
            Ok(texts) => texts,
            Err(error) => return drop(started.send(Err(error))),
        };
        let _ = started.send(Ok(()));
        let (listening, exits) = (HashMap::new(), VecDeque::new());
        let workspace = Workspace::new();
        let mut worker = Worker { texts, listening, exits, workspace, shared, metrics };
        // A panic is a fault of ours; the server then says that it is not well.
        let _ended = Watch(Arc::clone(&worker.shared));
        worker.run(&receiver);
    };
    thread::Builder::new().name("model".to_owned()).spawn(work).map_err(crate::Error::Thread)?;
    start.recv().map_err(|_| crate::Error::NoWorker)??;
    Ok(sender)
}

/// Notes that the thread is gone, however it ended.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.worker_is_gone();
    }
}

struct Worker<'p> {
    texts: TextScheduler<'p>,
    listening: HashMap<TextId, Listening>,
    exits: VecDeque<(ExitReader, ReadingsSender)>,
    workspace: Workspace,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
}

impl Worker<'_> {
    /// Works until nobody can ask for anything any more.
    fn run(&mut self, commands: &Receiver<Command>) {
        loop {
            if self.texts.scheduler().is_idle() && self.exits.is_empty() {
                self.shared.rests();
                match commands.recv() {
                    Ok(command) => self.take(command),
                    Err(_) => return,
                }
            }
            self.shared.steps();
            while let Ok(command) = commands.try_recv() {
                self.take(command);
            }
            self.forget_those_who_left();
            self.step();
            self.read_exits();
            self.metrics.sees(self.texts.scheduler());
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Exits(reader, listener) => self.exits.push_back((*reader, listener)),
            Command::Text(job) => {
                let Job { request, stop, index, listener, place, arrived } = *job;
                if listener.is_closed() {
                    return;
                }
                match self.texts.add(request, &stop) {
                    Ok(id) => {
                        let text = Listening { index, listener, arrived, heard: None, _place: place };
                        self.listening.insert(id, text);
                    }
                    Err(error) => drop(listener.send((index, Event::Failed(Box::new(error))))),
                }
            }
        }
    }

    /// Takes out the texts whose client has gone.
    fn forget_those_who_left(&mut self) {
        let gone = self.listening.iter().filter(|(_, text)| text.listener.is_closed());
        let gone: Vec<TextId> = gone.map(|(id, _)| *id).collect();
        for id in gone {
            self.texts.remove(id);
            self.listening.remove(&id);
            self.metrics.cancelled();
        }
    }

    fn step(&mut self) {
        let start = Instant::now();
        let progress = self.texts.step();
        self.metrics.step(start.elapsed());
        for TextProgress { id, tokens, texts, tail, prompt_logprobs, ended } in progress {
            let Some(listening) = self.listening.get_mut(&id) else { continue };
            let now = Instant::now();
            self.metrics.tokens(&tokens, listening.arrived, listening.heard, now);
            if !tokens.is_empty() {
                listening.heard = Some(now);
            }
            let text = texts.concat() + &tail;
            let (index, listener) = (listening.index, listening.listener.clone());
            let _ = listener.send((index, Event::More { text, tokens, prompt_logprobs }));
            if let Some(ended) = ended {
                self.listening.remove(&id);
                let event = match ended {
                    Ok(ended) => {
                        self.metrics.ended(&ended);
                        Event::Ended(ended)
                    }
                    Err(error) => Event::Failed(Box::new(error)),
                };
                let _ = listener.send((index, event));
            }
        }
    }

    /// Reads a few positions of the text that has waited longest.
    fn read_exits(&mut self) {
        let Some((mut reader, listener)) = self.exits.pop_front() else { return };
        if listener.is_closed() {
            return;
        }
        match reader.step(&mut self.workspace) {
            Err(error) => drop(listener.send(Err(error.to_string()))),
            Ok(None) => (),
            Ok(Some(readings)) => {
                let _ = listener.send(Ok(readings));
                // One after another: only one of them takes memory.
                self.exits.push_front((reader, listener));
            }
        }
    }
}
