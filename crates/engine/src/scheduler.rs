//! Many texts at once: they join and leave between steps, and share every call.

use crate::completion::{Completion, GenerateOptions, NewToken};
use crate::confidence::ConfidenceExit;
use crate::generate::Generation;
use crate::session::Session;
use crate::speculate::Speculation;
use crate::step::step;
use crate::step::turn::Text;
use crate::workspace::Workspace;
use crate::{Error, Result};
use offramp_model::{BlockPool, Llama};
use std::collections::VecDeque;
use std::sync::Arc;

/// How much a scheduler takes on.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    /// Positions of all texts together for which there are keys and values: the memory is bounded by it.
    pub kv_positions: usize,
    /// Rows that go through the layers in a step, drafts not counted: a long prompt is fed in pieces of at
    /// most so many, so that it does not keep the other texts waiting.
    pub max_num_batched_tokens: usize,
    /// Texts at a time; more wait.
    pub max_num_seqs: usize,
}

impl SchedulerOptions {
    /// Enough for as many texts as there are blocks for.
    pub fn new(kv_positions: usize) -> Self {
        Self { kv_positions, max_num_batched_tokens: 256, max_num_seqs: 64 }
    }
}

/// A text that is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The token ids to go on from.
    pub prompt: Vec<u32>,
    /// Layers that a token takes.
    pub exit_layer: usize,
    /// Where tokens may leave before.
    pub confidence: Option<ConfidenceExit>,
    /// Whether and how tokens are drafted.
    pub speculation: Speculation,
    /// How many tokens, what ends them, and how each is chosen.
    pub options: GenerateOptions,
}

/// Names one text of a scheduler.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TextId(u64);

/// What a step brought for one text.
#[derive(Debug)]
pub struct Progressed {
    /// The text.
    pub id: TextId,
    /// Its new tokens.
    pub tokens: Vec<NewToken>,
    /// What came of it, once it has ended; it has left the scheduler then.
    pub ended: Option<Result<Completion>>,
}

/// Runs texts over one model, so that each layer's weights are read once for all of them.
///
/// A text's tokens are the same whoever runs beside it. A text joins as soon as the pool has blocks for its
/// prompt and all of its new tokens, in the order in which texts were added, so that none has to stop half
/// way. Where it begins as one that runs, both share the blocks.
#[derive(Debug)]
pub struct Scheduler {
    model: Arc<Llama>,
    pool: Arc<BlockPool>,
    options: SchedulerOptions,
    waiting: VecDeque<(TextId, Request)>,
    running: Vec<(TextId, Generation)>,
    workspace: Workspace,
    next: u64,
}

impl Scheduler {
    /// One without any texts.
    ///
    /// # Errors
    /// If the memory has no space for so many positions.
    pub fn new(model: &Arc<Llama>, options: SchedulerOptions) -> Result<Self> {
        Ok(Self {
            model: Arc::clone(model),
            pool: model.new_pool(options.kv_positions)?,
            options,
            waiting: VecDeque::new(),
            running: Vec::new(),
            workspace: Workspace::new(),
            next: 0,
        })
    }

    /// Adds a text, which joins with a later step.
    ///
    /// # Errors
    /// If the text can never run: as [`check`](crate::check), or if prompt and new tokens are more than the
    /// context or the pool holds.
    pub fn add(&mut self, request: Request) -> Result<TextId> {
        let capacity = capacity(&self.model, &request);
        if capacity > self.pool.capacity() {
            return Err(Error::ContextFull { tokens: capacity, context: self.pool.capacity() });
        }
        // Of a pool that takes no memory: what is wrong with a request is said at once.
        let session = with_policy(Session::new(&self.model, capacity)?, &request)?;
        crate::check(&session, &request.prompt, &request.options, &request.speculation)?;
        let id = TextId(self.next);
        self.next += 1;
        self.waiting.push_back((id, request));
        Ok(id)
    }

    /// Takes a text out, whether it runs or waits; what came of it so far, if it is there.
    pub fn remove(&mut self, id: TextId) -> Option<Completion> {
        self.waiting.retain(|(waiting, _)| *waiting != id);
        let index = self.running.iter().position(|(running, _)| *running == id)?;
        let (_, mut text) = self.running.remove(index);
        text.stop(usize::MAX);
        Some(text.into_parts().0)
    }

    /// Texts that take part in steps, and texts that wait for blocks.
    pub fn texts(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// The blocks that all texts share.
    pub fn pool(&self) -> &BlockPool {
        &self.pool
    }

    /// All the work that was done so far.
    pub fn work(&self) -> offramp_model::Work {
        self.workspace.work()
    }

    /// Lets texts join that there are blocks for, and takes one step of all; what came of each that has new
    /// tokens or has ended.
    pub fn step(&mut self) -> Vec<Progressed> {
        self.join();
        let mut texts: Vec<Text<'_>> = self
            .running
            .iter_mut()
            .map(|(_, Generation { session, speculation, progress })| Text { session, speculation, progress })
            .collect();
        let mut failure = step(&mut texts, self.options.max_num_batched_tokens, &mut self.workspace).err();
        drop(texts);
        let mut progressed = Vec::new();
        let mut index = 0;
        while index < self.running.len() {
            let (id, text) = &mut self.running[index];
            let (id, tokens) = (*id, text.progress.came().to_vec());
            if !text.progress.is_over() {
                index += 1;
                if !tokens.is_empty() {
                    progressed.push(Progressed { id, tokens, ended: None });
                }
                continue;
            }
            let (_, mut text) = self.running.remove(index);
            let failed = text.progress.failure().or_else(|| {
                let shared = text.finished().is_none();
                shared.then(|| failure.take().unwrap_or(Error::OthersFailed))
            });
            let ended = Some(failed.map_or_else(|| Ok(text.into_parts().0), Err));
            progressed.push(Progressed { id, tokens, ended });
        }
        progressed
    }

    /// Begins texts that wait, in their order, as long as there are blocks.
    fn join(&mut self) {
        while self.running.len() < self.options.max_num_seqs
            && let Some((id, request)) = self.waiting.pop_front()
        {
            match self.begin(&request) {
                Ok(text) => self.running.push((id, text)),
                // Another text will give its blocks back: with none, there would have been enough.
                Err(_) => return self.waiting.push_front((id, request)),
            }
        }
    }

    fn begin(&self, request: &Request) -> Result<Generation> {
        let Request { prompt, exit_layer, speculation, options, .. } = request;
        let capacity = capacity(&self.model, request);
        // Something has to be run, so that there are logits.
        let most = prompt.len().saturating_sub(1);
        let shared = |text: &Generation| text.session.common_prefix(&prompt[..most], *exit_layer);
        let longest = self.running.iter().map(|(_, text)| (shared(text), text));
        let session = match longest.max_by_key(|(shared, _)| *shared) {
            Some((shared, text)) if shared > 0 => text.session.fork(shared, capacity)?,
            _ => Session::new_in(&self.model, &self.pool, capacity)?,
        };
        let session = with_policy(session, request)?;
        let rest = &prompt[session.tokens().len()..];
        Generation::new(session, rest, options, speculation.clone())
    }
}

/// Positions that a text may come to hold.
fn capacity(model: &Llama, request: &Request) -> usize {
    let wanted = request.prompt.len().saturating_add(request.options.max_new_tokens);
    wanted.min(model.config().context().max(request.prompt.len()))
}

fn with_policy(mut session: Session, request: &Request) -> Result<Session> {
    session.set_exit_layer(request.exit_layer)?;
    session.set_confidence_exit(request.confidence.clone())?;
    Ok(session)
}
