//! One split of a prepared corpus as one long sequence of tokens, with random access.

use std::path::Path;

use crate::corpus::{AllStories, Corpus, CorpusCounts};
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::prepare::PrepareSummary;
use crate::shard::{ShardReader, check_ids};
use crate::tokenizer::{Encoder, Tokenizer};

/// The tokens of all stories of a split, with one end-of-text token between two stories and none at either
/// end.
///
/// `Sync`: several threads may read the same stream.
#[derive(Debug)]
pub struct TokenStream {
    source: TokenSource,
    len: u64,
    utf8_bytes: u64,
    vocab_size: usize,
    counts: CorpusCounts,
    fingerprint: Fingerprint,
    /// The fingerprint of the tokenizer that made the ids, if known.
    tokenizer: Option<Fingerprint>,
}

/// Tokens read at once in the search for the end of a story.
const PART: usize = 1 << 16;

#[derive(Debug)]
enum TokenSource {
    Memory(Vec<u32>),
    /// Each shard with the position of its first token.
    Shards(Vec<(u64, ShardReader)>),
}

impl TokenStream {
    /// Opens the split `train` or `valid` of a folder that [`crate::prepare`] wrote, and reads every shard
    /// once to check it against its checksum.
    ///
    /// # Errors
    /// [`Error::Manifest`], [`Error::NoSplit`], [`Error::Shard`], [`Error::Read`].
    pub fn open(folder: &Path, split: &str) -> Result<Self> {
        let summary = PrepareSummary::read(folder)?;
        let path = PrepareSummary::file_in(folder);
        let info = summary.split(split).ok_or_else(|| Error::NoSplit {
            path: folder.to_owned(),
            split: split.to_owned(),
            found: summary.split_names().join(", "),
        })?;
        let mut shards = Vec::new();
        let (mut len, mut utf8_bytes) = (0u64, 0u64);
        let (mut sum, mut tokenizer) = (FingerprintHasher::new(), None);
        for name in &info.shards {
            let shard = ShardReader::open(&folder.join(name), &mut sum)?;
            let header = *shard.header();
            if let Some(prints) = header.prints
                && *tokenizer.get_or_insert(prints.tokenizer) != prints.tokenizer
            {
                let reason = "it is of another tokenizer than the shards before it".to_owned();
                return Err(Error::Shard { path: folder.join(name), reason });
            }
            if header.vocab_size as usize != summary.vocab_size {
                return Err(Error::Shard {
                    path: folder.join(name),
                    reason: format!(
                        "a vocabulary of {}, where corpus.json says {}",
                        header.vocab_size, summary.vocab_size
                    ),
                });
            }
            shards.push((len, shard));
            // The lengths match the files, so their sum cannot overflow. The byte counts are unchecked
            // numbers.
            len += header.tokens;
            utf8_bytes = utf8_bytes.saturating_add(header.utf8_bytes);
        }
        if (len, utf8_bytes) != (info.tokens, info.utf8_bytes) {
            let reason = format!(
                "split \"{split}\" should have {} tokens of {} bytes, and its shards have {len} of {utf8_bytes}",
                info.tokens, info.utf8_bytes
            );
            return Err(Error::Manifest { path, reason });
        }
        let (source, fingerprint, counts) = (TokenSource::Shards(shards), sum.fingerprint(), info.counts);
        Ok(Self { source, len, utf8_bytes, vocab_size: summary.vocab_size, counts, fingerprint, tokenizer })
    }

    /// The stories of a corpus in memory, without a folder of shards: the same stream that [`crate::prepare`]
    /// makes of them. Stops after the story that reaches `max_tokens`.
    ///
    /// # Errors
    /// Faults of the corpus ([`Error::NoStories`] if it is empty) or of the tokenizer
    /// ([`Error::NoEndOfText`]).
    pub fn from_corpora(corpora: &[Corpus], tokenizer: &Tokenizer, max_tokens: u64) -> Result<Self> {
        let mut row = AllStories::new(corpora);
        let mut stream = Gathered::new(tokenizer, max_tokens)?;
        let mut read = 0;
        while let Some(story) = row.next().transpose()? {
            read += 1;
            if stream.push(&story.text, story.path(), story.number())? {
                break;
            }
        }
        // The last record may have stories that were not read.
        let counts = CorpusCounts { stories: read, ..row.counts() };
        let path = corpora.first().map_or(Path::new("no file"), Corpus::path);
        Ok(Self { counts, ..stream.finish(path)? })
    }

    /// As [`TokenStream::from_corpora`], for stories from an iterator; `path` names them in errors.
    ///
    /// # Errors
    /// The first error of `stories`, and as [`TokenStream::from_corpora`].
    pub fn from_stories(
        stories: impl Iterator<Item = Result<String>>,
        path: &Path,
        tokenizer: &Tokenizer,
        max_tokens: u64,
    ) -> Result<Self> {
        let mut stream = Gathered::new(tokenizer, max_tokens)?;
        let mut counts = CorpusCounts::default();
        for story in stories {
            counts.stories += 1;
            if stream.push(&story?, path, counts.stories)? {
                break;
            }
        }
        Ok(Self { counts, ..stream.finish(path)? })
    }

    /// A stream of tokens in memory. Its [`TokenStream::utf8_bytes`] is 0, because the number of bytes is
    /// unknown.
    ///
    /// # Errors
    /// [`Error::TokenBeyondVocabulary`].
    pub fn from_tokens(tokens: Vec<u32>, vocab_size: usize) -> Result<Self> {
        check_ids(&tokens, 0, vocab_size, || "tokens in memory".into())?;
        let len = tokens.len() as u64;
        let mut sum = FingerprintHasher::new();
        sum.add_ids(&tokens);
        let (source, fingerprint, counts) =
            (TokenSource::Memory(tokens), sum.fingerprint(), CorpusCounts::default());
        Ok(Self { source, len, utf8_bytes: 0, vocab_size, counts, fingerprint, tokenizer: None })
    }

    /// The beginning of the stream that reading the corpus up to `max_tokens` would give: up to the end of
    /// the story that reaches this many tokens. Its fingerprint stays that of the whole stream.
    ///
    /// # Errors
    /// As [`TokenStream::read`].
    pub fn up_to(self, max_tokens: u64, end_of_text: u32) -> Result<Self> {
        let mut part = vec![0; PART];
        let mut at = max_tokens.max(1);
        while at < self.len {
            let part = &mut part[..PART.min((self.len - at) as usize)];
            self.read(at, part)?;
            if let Some(end) = part.iter().position(|&token| token == end_of_text) {
                // The counts of bytes and stories in this part are not stored.
                let counts = CorpusCounts::default();
                return Ok(Self { len: at + end as u64, utf8_bytes: 0, counts, ..self });
            }
            at += part.len() as u64;
        }
        Ok(self)
    }

    /// The counts of the corpus; zeros where they are unknown.
    pub fn counts(&self) -> CorpusCounts {
        self.counts
    }

    /// Tokens in the stream.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the stream has no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// UTF-8 bytes of all stories, without the tokens between them. 0 where that is unknown.
    pub fn utf8_bytes(&self) -> u64 {
        self.utf8_bytes
    }

    /// Every id is below this.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The fingerprint of the stream's ids. It does not depend on where the stream is stored.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Checks that the ids come from `tokenizer`; `path` names it in errors. Shards of version 1 do not say
    /// which tokenizer made them, and pass.
    ///
    /// # Errors
    /// [`Error::OtherTokenizer`].
    pub fn check_tokenizer(&self, tokenizer: &Tokenizer, path: &Path) -> Result<()> {
        match self.tokenizer {
            Some(made_by) if made_by != tokenizer.fingerprint()? => {
                Err(Error::OtherTokenizer { path: path.to_owned() })
            }
            _ => Ok(()),
        }
    }

    /// Copies the tokens from `start` on into `out`.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the stream does not have them all; [`Error::Read`];
    /// [`Error::TokenBeyondVocabulary`].
    pub fn read(&self, start: u64, out: &mut [u32]) -> Result<()> {
        let count = out.len() as u64;
        if start.checked_add(count).is_none_or(|end| end > self.len) {
            return Err(Error::OutOfRange { start, count, len: self.len });
        }
        match &self.source {
            TokenSource::Memory(tokens) => {
                let start = start as usize;
                out.copy_from_slice(&tokens[start..start + out.len()]);
                Ok(())
            }
            TokenSource::Shards(shards) => read_shards(shards, start, out),
        }
    }
}

/// A stream that is being built in memory.
struct Gathered<'t> {
    tokenizer: &'t Tokenizer,
    encoder: Encoder<'t>,
    end_of_text: u32,
    max_tokens: u64,
    begun: bool,
    tokens: Vec<u32>,
    utf8_bytes: u64,
}

impl<'t> Gathered<'t> {
    fn new(tokenizer: &'t Tokenizer, max_tokens: u64) -> Result<Self> {
        let (encoder, end_of_text) = (tokenizer.encoder(), tokenizer.end_of_text_or_error()?);
        Ok(Self {
            tokenizer,
            encoder,
            end_of_text,
            max_tokens,
            begun: false,
            tokens: Vec::new(),
            utf8_bytes: 0,
        })
    }

    /// Appends story `number` of `path`; `true` once there are enough tokens.
    fn push(&mut self, story: &str, path: &Path, number: u64) -> Result<bool> {
        if std::mem::replace(&mut self.begun, true) {
            self.tokens.push(self.end_of_text);
        }
        self.encoder.encode(story, &mut self.tokens).map_err(|source| Error::Story {
            path: path.to_owned(),
            story: number,
            source: Box::new(source),
        })?;
        self.utf8_bytes += story.len() as u64;
        Ok(self.tokens.len() as u64 >= self.max_tokens)
    }

    fn finish(self, path: &Path) -> Result<TokenStream> {
        if self.tokens.is_empty() {
            return Err(Error::NoStories { path: path.to_owned() });
        }
        let stream = TokenStream::from_tokens(self.tokens, self.tokenizer.vocab_size())?;
        Ok(TokenStream { utf8_bytes: self.utf8_bytes, ..stream })
    }
}

fn read_shards(shards: &[(u64, ShardReader)], mut start: u64, mut out: &mut [u32]) -> Result<()> {
    // The last shard that begins at or before `start`.
    let mut index = shards.partition_point(|&(first, _)| first <= start).saturating_sub(1);
    while !out.is_empty() {
        let (first, shard) = &shards[index];
        let here = (first + shard.header().tokens - start).min(out.len() as u64) as usize;
        let (now, later) = out.split_at_mut(here);
        shard.read(start - first, now)?;
        start += here as u64;
        out = later;
        index += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
