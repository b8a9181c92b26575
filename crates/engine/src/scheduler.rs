//! Many texts at once: they join and leave between steps, and share every call.

use crate::completion::{Completion, GenerateOptions, NewToken};
use crate::confidence::ConfidenceExit;
use crate::generate::Generation;
use crate::kept::Kept;
use crate::logprobs::Logprobs;
use crate::session::Session;
use crate::speculate::Speculation;
use crate::step::step;
use crate::step::turn::Text;
use crate::workspace::Workspace;
use crate::{Error, Result};
use offramp_model::{BlockPool, Llama};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

/// How much a scheduler takes on.
#[derive(Clone, Copy, Debug)]
pub struct SchedulerOptions {
    /// Positions of all texts together for which there are keys and values: the memory is bounded by it.
    pub kv_positions: usize,
    /// Rows that go through the layers in a step, drafts not counted: a long prompt is fed in pieces of at
    /// most so many. Beside texts that decode, a piece is also at most what takes about a quarter of a
    /// second, so that they do not wait for it.
    pub max_num_batched_tokens: usize,
    /// Texts at a time; more wait.
    pub max_num_seqs: usize,
    /// Whether blocks of texts that ended stay until others need them, so that a text that begins alike need
    /// not compute them again.
    pub prefix_caching: bool,
}

impl SchedulerOptions {
    /// Enough for as many texts as there are blocks for.
    pub fn new(kv_positions: usize) -> Self {
        Self { kv_positions, max_num_batched_tokens: 256, max_num_seqs: 64, prefix_caching: true }
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

impl Request {
    /// Whether the text can run, alone at least, in a pool of so many positions.
    ///
    /// # Errors
    /// As [`Scheduler::add`].
    pub fn check(&self, model: &Arc<Llama>, kv_positions: usize) -> Result<()> {
        let capacity = capacity(model, self);
        if capacity > kv_positions {
            return Err(Error::ContextFull { tokens: capacity, context: kv_positions });
        }
        // Of a pool that takes no memory.
        let session = with_policy(Session::new(model, capacity)?, self)?;
        crate::check(&session, &self.prompt, &self.options, &self.speculation)
    }
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
    /// Log-probabilities of the next tokens of its prompt, where they were asked for.
    pub prompt_logprobs: Vec<Logprobs>,
    /// What came of it, once it has ended; it has left the scheduler then.
    pub ended: Option<Result<Completion>>,
}

/// How long a step may take that feeds a prompt beside texts that decode.
const STEP: f64 = 0.25;
/// Rows of a prompt that every step has space for: fewer would read all weights for little.
const FEWEST_ROWS: usize = 16;

/// Runs texts over one model, so that each layer's weights are read once for all of them.
///
/// A text's tokens are the same whoever runs beside it. A text joins as soon as the pool has blocks for its
/// prompt and all of its new tokens, in the order in which texts were added, so that none has to stop half
/// way. Where it begins as one that runs, both share the blocks. Where it begins as one that has ended, it
/// takes over the blocks that are still there.
///
/// What the adaptive policy learns in one text, it knows in the next.
#[derive(Debug)]
pub struct Scheduler {
    model: Arc<Llama>,
    pool: Arc<BlockPool>,
    options: SchedulerOptions,
    waiting: VecDeque<(TextId, Request)>,
    running: Vec<(TextId, Generation)>,
    kept: Kept,
    learnt: Option<Speculation>,
    /// What a row takes in a step of many.
    seconds_per_row: Option<f64>,
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
            kept: Kept::default(),
            learnt: None,
            seconds_per_row: None,
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
        request.check(&self.model, self.pool.capacity())?;
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
        Some(self.end(text))
    }

    /// Takes over what an ended text leaves.
    fn end(&mut self, text: Generation) -> Completion {
        let (completion, session, speculation) = text.into_parts();
        if speculation.is_auto() {
            self.learnt = Some(speculation);
        }
        if self.options.prefix_caching {
            self.kept.keep(session);
        }
        completion
    }

    /// What the adaptive policy learnt in the text that ended last.
    pub fn learnt(&self) -> Option<&Speculation> {
        self.learnt.as_ref()
    }

    /// Texts that take part in steps, and texts that wait for blocks.
    pub fn texts(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// Positions in blocks of texts that have ended: given up where others need them.
    pub fn kept_positions(&self) -> usize {
        self.kept.positions()
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
        let (start, unfed, budget) = (Instant::now(), self.unfed(), self.budget());
        let mut texts: Vec<Text<'_>> = self
            .running
            .iter_mut()
            .map(|(_, Generation { session, speculation, progress })| Text { session, speculation, progress })
            .collect();
        let mut failure = step(&mut texts, budget, &mut self.workspace).err();
        drop(texts);
        let fed = unfed - self.unfed();
        if fed >= FEWEST_ROWS {
            self.seconds_per_row = Some(start.elapsed().as_secs_f64() / fed as f64);
        }
        let mut progressed = Vec::new();
        let mut index = 0;
        while index < self.running.len() {
            let (id, text) = &mut self.running[index];
            let (id, tokens) = (*id, text.progress.came().to_vec());
            let prompt_logprobs = text.progress.newly_scored().to_vec();
            if !text.progress.is_over() {
                index += 1;
                if !tokens.is_empty() || !prompt_logprobs.is_empty() {
                    progressed.push(Progressed { id, tokens, prompt_logprobs, ended: None });
                }
                continue;
            }
            let (_, mut text) = self.running.remove(index);
            let failed = text.progress.failure().or_else(|| {
                let shared = text.finished().is_none();
                shared.then(|| failure.take().unwrap_or(Error::OthersFailed))
            });
            let ended = Some(match failed {
                Some(error) => Err(error),
                None => Ok(self.end(text)),
            });
            progressed.push(Progressed { id, tokens, prompt_logprobs, ended });
        }
        progressed
    }

    /// Tokens of prompts that have yet to be fed.
    fn unfed(&self) -> usize {
        self.running.iter().map(|(_, text)| text.progress.unfed().len()).sum()
    }

    /// Rows of the next step.
    fn budget(&self) -> usize {
        let most = self.options.max_num_batched_tokens;
        let decoding = self.running.iter().filter(|(_, text)| text.progress.newest().is_some()).count();
        match self.seconds_per_row {
            Some(seconds) if decoding > 0 => most.min(FEWEST_ROWS.max((STEP / seconds) as usize) + decoding),
            _ => most,
        }
    }

    /// Begins texts that wait, in their order, as long as there are blocks.
    fn join(&mut self) {
        while self.running.len() < self.options.max_num_seqs
            && let Some((id, request)) = self.waiting.pop_front()
        {
            match self.begin(&request) {
                Ok(text) => self.running.push((id, text)),
                // What ended texts left makes room first.
                Err(_) if self.kept.give_up_one() => self.waiting.push_front((id, request)),
                // Another text will give its blocks back: with none, there would have been enough.
                Err(_) => return self.waiting.push_front((id, request)),
            }
        }
    }

    fn begin(&mut self, request: &Request) -> Result<Generation> {
        let Request { prompt, exit_layer, speculation, options, .. } = request;
        let session = self.session(request)?;
        let speculation = match &self.learnt {
            Some(learnt) if speculation.is_auto() => {
                let (head, layers) = (speculation.head().cloned(), speculation.layers().cloned());
                learnt.clone().with_head(head).with_layers(layers)
            }
            _ => speculation.clone(),
        };
        debug_assert_eq!(session.exit_layer(), *exit_layer);
        let rest = &prompt[session.tokens().len()..];
        Generation::new(session, rest, options, speculation)
    }

    /// A session that begins with as much of the prompt as others hold.
    fn session(&mut self, request: &Request) -> Result<Session> {
        let Request { prompt, exit_layer, options, .. } = request;
        let capacity = capacity(&self.model, request);
        // Something has to be run, so that there are logits: all of it where all are read.
        let most = if options.prompt_logprobs.is_some() { 0 } else { prompt.len().saturating_sub(1) };
        let beginning = &prompt[..most];
        let shared = |text: &Generation| text.session.common_prefix(beginning, *exit_layer);
        let longest = self.running.iter().map(|(_, text)| (shared(text), text));
        let longest = longest.max_by_key(|(shared, _)| *shared).filter(|(shared, _)| *shared > 0);
        let kept = self.kept.longest(beginning, *exit_layer);
        let session = match (longest, kept) {
            (Some((shared, text)), kept) if kept.as_ref().is_none_or(|(held, _)| *held <= shared) => {
                text.session.fork(shared, capacity)?
            }
            (_, Some((held, session))) => session.fork(held, capacity)?,
            _ => Session::new_in(&self.model, &self.pool, capacity)?,
        };
        with_policy(session, request)
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
