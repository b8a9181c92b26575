//! Encodes a split, or a part of one: reads stories and encodes them, on all cores, in order.
//!
//! Work goes in rounds. In each round every worker encodes one chunk of stories, while this thread reads the
//! chunks of the next round. Then the round's tokens are written in the order of the stories. Chunks are cut
//! by size alone, and a story's ids depend on the story alone. So the number of cores does not change the
//! output.

use std::panic::resume_unwind;
use std::thread;

use super::{PrepareProgress, Stage};
use crate::corpus::{AllStories, Corpus, CorpusCounts, Part, Story};
use crate::error::{Error, Result};
use crate::tokenizer::{Encoder, Tokenizer};

/// Bytes of text in a worker's chunk (more, if a single story is longer).
pub(super) const CHUNK_BYTES: usize = 1 << 20;
/// More workers than this would wait for the reader.
const MAX_WORKERS: usize = 16;

/// What is encoded, and how.
pub(super) struct SplitJob<'j> {
    /// The files of the split, in order.
    pub(super) corpora: &'j [Corpus],
    /// What this process reads of them.
    pub(super) part: Part,
    pub(super) tokenizer: &'j Tokenizer,
    pub(super) stage: Stage,
    pub(super) threads: usize,
}

/// What takes the tokens, in the order of the stories.
pub(super) trait Sink {
    /// Returns how many it has taken so far.
    fn write(&mut self, chunk: &StoryChunk<'_>) -> Result<u64>;
}

/// What was read for a part of a split.
pub(super) struct PartRead {
    pub(super) counts: CorpusCounts,
    /// As [`AllStories::shared`].
    pub(super) shared: Vec<(usize, u64)>,
}

/// Stories, then also their tokens.
#[derive(Default)]
pub(super) struct StoryChunk<'c> {
    stories: Vec<Story<'c>>,
    bytes: usize,
    tokens: Vec<u32>,
    /// The end of each story's tokens.
    ends: Vec<usize>,
}

impl SplitJob<'_> {
    pub(super) fn run(
        &self,
        sink: &mut dyn Sink,
        progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<PartRead> {
        let workers = self.threads.clamp(1, MAX_WORKERS);
        let mut encoders: Vec<Encoder> = (0..workers).map(|_| self.tokenizer.encoder()).collect();
        let pieces = self.part.pieces(self.corpora);
        let bytes_total = pieces.iter().map(|piece| piece.len()).sum();
        let mut stories = AllStories::of(pieces);
        let mut tokens = 0;
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
                tokens = sink.write(&chunk?)?;
            }
            let (bytes_read, processes) = (stories.bytes_read(), self.part.of);
            progress(PrepareProgress { stage: self.stage, bytes_read, bytes_total, tokens, processes });
            round = next?;
        }
        Ok(PartRead { counts: stories.counts(), shared: stories.shared().to_vec() })
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
        for story in &self.stories {
            encoder.encode(&story.text, &mut self.tokens).map_err(|source| Error::Story {
                path: story.path().to_owned(),
                story: story.number(),
                source: Box::new(source),
            })?;
            self.ends.push(self.tokens.len());
        }
        Ok(self)
    }

    /// The tokens of all stories.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The number of tokens and of UTF-8 bytes of each story.
    pub(super) fn lengths(&self) -> impl ExactSizeIterator<Item = (usize, usize)> {
        let mut start = 0;
        self.ends.iter().zip(&self.stories).map(move |(&end, story)| {
            let tokens = end - start;
            start = end;
            (tokens, story.text.len())
        })
    }
}
