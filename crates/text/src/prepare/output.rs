//! The shards of a split, written one after the other.

use std::path::Path;

use offramp_files::{Finished, Unfinished};

use super::encode::{Sink, StoryChunk};
use super::{PrepareOptions, SplitSummary};
use crate::corpus::{Corpus, CorpusCounts};
use crate::error::{Error, Result};
use crate::fingerprint::FingerprintHasher;
use crate::shard::{EXTENSION, ShardWriter};
use crate::tokenizer::Tokenizer;

/// Where the shards of a split go, and how they are cut.
pub(super) struct Target<'j> {
    /// The prepared folder.
    pub(super) out: &'j Path,
    /// Where they are until all are complete.
    pub(super) meanwhile: &'j Path,
    /// As [`super::PrepareOptions::shard_tokens`].
    pub(super) shard_tokens: u64,
    /// `train` or `valid`.
    pub(super) split: &'static str,
}

impl<'j> Target<'j> {
    pub(super) fn of(options: &'j PrepareOptions, meanwhile: &'j Path, split: &'static str) -> Self {
        Self { out: &options.out, meanwhile, shard_tokens: options.shard_tokens, split }
    }
}

/// The shards of a split. The last one is open.
pub(super) struct ShardOutput<'j> {
    target: Target<'j>,
    tokenizer: &'j Tokenizer,
    end_of_text: u32,
    open: Option<ShardWriter>,
    closed: Vec<Finished>,
    /// The sum of the closed shards' ids.
    sum: FingerprintHasher,
    summary: SplitSummary,
    story: Vec<u32>,
}

impl<'j> ShardOutput<'j> {
    pub(super) fn new(target: Target<'j>, tokenizer: &'j Tokenizer, corpora: &[Corpus]) -> Result<Self> {
        let name = |corpus: &Corpus| {
            corpus.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        };
        let summary = SplitSummary {
            sources: corpora.iter().map(name).collect(),
            counts: CorpusCounts::default(),
            tokens: 0,
            utf8_bytes: 0,
            shards: Vec::new(),
        };
        let end_of_text = tokenizer.end_of_text_or_error()?;
        let (closed, sum) = (Vec::new(), FingerprintHasher::new());
        Ok(Self { target, tokenizer, end_of_text, open: None, closed, sum, summary, story: Vec::new() })
    }

    /// Appends the tokens of stories with these numbers of tokens and bytes. Returns the tokens so far.
    pub(super) fn write_stories(
        &mut self,
        mut tokens: &[u32],
        lengths: impl Iterator<Item = (usize, usize)>,
    ) -> Result<u64> {
        for (count, utf8_bytes) in lengths {
            let (story, rest) = tokens.split_at(count);
            self.write_story(story, utf8_bytes as u64)?;
            tokens = rest;
        }
        Ok(self.summary.tokens)
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
                let Target { out, meanwhile, split, .. } = self.target;
                let name = format!("{split}-{:05}{EXTENSION}", self.closed.len());
                let target = out.join(&name);
                self.summary.shards.push(name);
                let file = Unfinished::create_in(meanwhile, &target).map_err(|e| Error::write(&target, e))?;
                let (vocab_size, print) = (self.tokenizer.vocab_size(), self.tokenizer.fingerprint()?);
                self.open.insert(ShardWriter::create(file, vocab_size, print, self.sum)?)
            }
        };
        shard.write(&self.story, utf8_bytes)?;
        self.summary.tokens += self.story.len() as u64;
        self.summary.utf8_bytes += utf8_bytes;
        if shard.tokens() >= self.target.shard_tokens {
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

    /// Closes the last shard. `counts` is what reading the whole split has counted.
    pub(super) fn finish(mut self, counts: CorpusCounts) -> Result<(SplitSummary, Vec<Finished>)> {
        self.close()?;
        self.summary.counts = counts;
        Ok((self.summary, self.closed))
    }
}

impl Sink for ShardOutput<'_> {
    fn write(&mut self, chunk: &StoryChunk<'_>) -> Result<u64> {
        self.write_stories(chunk.tokens(), chunk.lengths())
    }
}
