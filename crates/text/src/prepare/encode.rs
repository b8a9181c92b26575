//! Encodes one split: reads stories and writes shards, on all cores, in order.
//!
//! Work goes in rounds. In each round every worker encodes one chunk of stories, while this thread reads the
//! chunks of the next round. Then the round's tokens are written in the order of the stories. Chunks are cut
//! by size alone, and a story's ids depend on the story alone. So the number of cores does not change the
//! output.

use std::panic::resume_unwind;
use std::thread;

use offramp_files::Finished;

use super::{PrepareOptions, PrepareProgress, SplitSummary, Stage};
use crate::corpus::{self, AllStories, Corpus, CorpusCounts, Story};
use crate::error::{Error, Result};
use crate::fingerprint::FingerprintHasher;
use crate::shard::{EXTENSION, ShardWriter};
use crate::tokenizer::{Encoder, Tokenizer};

/// Bytes of text in a worker's chunk (more, if a single story is longer).
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// More workers than this would wait for the reader.
const MAX_WORKERS: usize = 16;

pub(super) struct SplitJob<'j> {
    /// The files of the split, in order.
    pub(super) corpora: &'j [Corpus],
    pub(super) tokenizer: &'j Tokenizer,
    pub(super) split: &'j str,
    pub(super) stage: Stage,
    pub(super) options: &'j PrepareOptions,
}

/// Stories, then also their tokens.
#[derive(Default)]
struct StoryChunk<'c> {
    stories: Vec<Story<'c>>,
    bytes: usize,
    tokens: Vec<u32>,
    /// The end of each story's tokens.
    ends: Vec<usize>,
}

impl SplitJob<'_> {
    pub(super) fn run(
        &self,
        progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<(SplitSummary, Vec<Finished>)> {
        let workers = thread::available_parallelism().map_or(1, |n| n.get()).min(MAX_WORKERS);
        let mut encoders: Vec<Encoder> = (0..workers).map(|_| self.tokenizer.encoder()).collect();
        let mut stories = AllStories::new(self.corpora);
        let mut out = ShardOutput::new(self)?;
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
        out.summary.counts = stories.counts();
        out.finish()
    }
}

fn read_round<'c>(stories: &mut AllStories<'c>, chunks: usize) -> Result<Vec<StoryChunk<'c>>> {
    let mut round = Vec::new();
    let mut chunk = StoryChunk::default();
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

impl StoryChunk<'_> {
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

/// The shards of a split. The last one is open.
struct ShardOutput<'j> {
    job: &'j SplitJob<'j>,
    end_of_text: u32,
    open: Option<ShardWriter>,
    closed: Vec<Finished>,
    /// The sum of the closed shards' ids.
    sum: FingerprintHasher,
    summary: SplitSummary,
    story: Vec<u32>,
}

impl<'j> ShardOutput<'j> {
    fn new(job: &'j SplitJob<'j>) -> Result<Self> {
        let name = |corpus: &Corpus| {
            corpus.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let summary = SplitSummary {
            sources: job.corpora.iter().map(name).collect(),
            counts: CorpusCounts::default(),
            tokens: 0,
            utf8_bytes: 0,
            shards: Vec::new(),
        };
        let end_of_text = job.tokenizer.end_of_text_or_error()?;
        let (closed, sum) = (Vec::new(), FingerprintHasher::new());
        Ok(Self { job, end_of_text, open: None, closed, sum, summary, story: Vec::new() })
    }

    fn write(&mut self, chunk: &StoryChunk<'_>) -> Result<()> {
        let mut start = 0;
        for (story, &end) in chunk.stories.iter().zip(&chunk.ends) {
            self.write_story(&chunk.tokens[start..end], story.text.len() as u64)?;
            start = end;
        }
        Ok(())
    }

    fn write_story(&mut self, tokens: &[u32], utf8_bytes: u64) -> Result<()> {
        self.story.clear();
        if !self.summary.shards.is_empty() {
            self.story.push(self.end_of_text);
        }
        self.story.extend_from_slice(tokens);
        let shard = match &mut self.open {
            Some(shard) => shard,
            None => {
                let name = format!("{}-{:05}{EXTENSION}", self.job.split, self.closed.len());
                let target = self.job.options.out.join(&name);
                self.summary.shards.push(name);
                let tokenizer = self.job.tokenizer;
                let print = tokenizer.fingerprint()?;
                self.open.insert(ShardWriter::create(&target, tokenizer.vocab_size(), print, self.sum)?)
            }
        };
        shard.write(&self.story, utf8_bytes)?;
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
