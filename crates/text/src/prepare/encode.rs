//! One split: stories in, shards out, on all cores, in order.
//!
//! Work goes in rounds. In each, every worker encodes one chunk of stories while this thread reads the chunks
//! of the next round; then the round's tokens are written in the order of the stories. Chunks are cut by size
//! alone, and a story's ids depend on nothing but the story, so the number of cores changes no byte.

use std::panic::resume_unwind;
use std::thread;

use offramp_files::Finished;

use super::{PrepareOptions, PrepareProgress, SplitSummary, Stage};
use crate::corpus::{self, Corpus, Found, Row, Story};
use crate::error::{Error, Result};
use crate::fingerprint::Sum;
use crate::shard::ShardWriter;
use crate::tokenizer::{Encoder, Tokenizer};

/// Text that one worker gets at a time (more, if a single story is longer).
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// More workers than this would only wait for the reader.
const MAX_WORKERS: usize = 16;

pub(super) struct Job<'j> {
    /// The files of the split, in order.
    pub(super) corpora: &'j [Corpus],
    pub(super) tokenizer: &'j Tokenizer,
    pub(super) split: &'j str,
    pub(super) stage: Stage,
    pub(super) options: &'j PrepareOptions,
}

/// Stories on their way, and what became of them.
#[derive(Default)]
struct Chunk<'c> {
    stories: Vec<Story<'c>>,
    bytes: usize,
    tokens: Vec<u32>,
    /// Where each story's tokens end.
    ends: Vec<usize>,
}

impl Job<'_> {
    pub(super) fn run(
        &self,
        progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<(SplitSummary, Vec<Finished>)> {
        let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_WORKERS);
        let mut encoders: Vec<Encoder> = (0..workers).map(|_| self.tokenizer.encoder()).collect();
        let mut stories = Row::new(self.corpora);
        let mut out = Output::new(self)?;
        let mut round = read_round(&mut stories, workers)?;
        while !round.is_empty() {
            let (encoded, next) = thread::scope(|scope| {
                let running: Vec<_> = round
                    .into_iter()
                    .zip(&mut encoders)
                    .map(|(chunk, encoder)| scope.spawn(move || chunk.encode(encoder)))
                    .collect();
                let next = read_round(&mut stories, workers);
                let encoded: Vec<_> = running
                    .into_iter()
                    .map(|worker| worker.join().unwrap_or_else(|p| resume_unwind(p)))
                    .collect();
                (encoded, next)
            });
            for chunk in encoded {
                out.write(&chunk?)?;
            }
            progress(PrepareProgress {
                stage: self.stage,
                bytes_read: stories.bytes_read(),
                bytes_total: corpus::bytes(self.corpora),
                tokens: out.summary.tokens,
            });
            round = next?;
        }
        let Found { skipped, crlf, lines, .. } = stories.found();
        (out.summary.skipped, out.summary.crlf, out.summary.lines) = (skipped, crlf, lines);
        out.finish()
    }
}

fn read_round<'c>(stories: &mut Row<'c>, chunks: usize) -> Result<Vec<Chunk<'c>>> {
    let mut round = Vec::new();
    let mut chunk = Chunk::default();
    while round.len() < chunks
        && let Some(story) = stories.next().transpose()?
    {
        chunk.bytes += story.text.len();
        chunk.stories.push(story);
        if chunk.bytes >= CHUNK_BYTES {
            round.push(std::mem::take(&mut chunk));
        }
    }
    if !chunk.stories.is_empty() {
        round.push(chunk);
    }
    Ok(round)
}

impl Chunk<'_> {
    fn encode(mut self, encoder: &mut Encoder) -> Result<Self> {
        for Story { text, path, number } in &self.stories {
            encoder.encode(text, &mut self.tokens).map_err(|source| Error::Story {
                path: path.to_path_buf(),
                story: *number,
                source: Box::new(source),
            })?;
            self.ends.push(self.tokens.len());
        }
        Ok(self)
    }
}

/// The shards of a split, the last of them open.
struct Output<'j> {
    job: &'j Job<'j>,
    end_of_text: u32,
    open: Option<ShardWriter>,
    closed: Vec<Finished>,
    /// Of the closed shards' ids.
    sum: Sum,
    summary: SplitSummary,
    story: Vec<u32>,
}

impl<'j> Output<'j> {
    fn new(job: &'j Job<'j>) -> Result<Self> {
        let name = |corpus: &Corpus| {
            corpus.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let summary = SplitSummary {
            sources: job.corpora.iter().map(name).collect(),
            stories: 0,
            tokens: 0,
            utf8_bytes: 0,
            skipped: 0,
            crlf: 0,
            lines: 0,
            shards: Vec::new(),
        };
        let end_of_text = job.tokenizer.end_of_text_or_error()?;
        let (closed, sum) = (Vec::new(), Sum::new());
        Ok(Self { job, end_of_text, open: None, closed, sum, summary, story: Vec::new() })
    }

    fn write(&mut self, chunk: &Chunk<'_>) -> Result<()> {
        let mut start = 0;
        for (story, &end) in chunk.stories.iter().zip(&chunk.ends) {
            self.write_story(&chunk.tokens[start..end], story.text.len() as u64)?;
            start = end;
        }
        Ok(())
    }

    fn write_story(&mut self, tokens: &[u32], utf8_bytes: u64) -> Result<()> {
        self.story.clear();
        if self.summary.stories > 0 {
            self.story.push(self.end_of_text);
        }
        self.story.extend_from_slice(tokens);
        let shard = match &mut self.open {
            Some(shard) => shard,
            None => {
                let name = format!("{}-{:05}.tokens", self.job.split, self.closed.len());
                let target = self.job.options.out.join(&name);
                self.summary.shards.push(name);
                let tokenizer = self.job.tokenizer;
                let print = tokenizer.fingerprint()?;
                self.open.insert(ShardWriter::create(&target, tokenizer.vocab_size(), print, self.sum)?)
            }
        };
        shard.write(&self.story, utf8_bytes)?;
        self.summary.stories += 1;
        self.summary.tokens += self.story.len() as u64;
        self.summary.utf8_bytes += utf8_bytes;
        if shard.tokens() >= self.job.options.shard_tokens {
            self.close()?;
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        if let Some(shard) = self.open.take() {
            self.sum = shard.split();
            self.closed.push(shard.finish()?);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<(SplitSummary, Vec<Finished>)> {
        self.close()?;
        Ok((self.summary, self.closed))
    }
}
