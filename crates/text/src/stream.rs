//! One split of a prepared corpus as one long row of tokens, read at random.

use std::path::Path;

use crate::corpus::Corpus;
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, Sum};
use crate::prepare::PrepareSummary;
use crate::shard::{ShardReader, check_ids};
use crate::tokenizer::Tokenizer;

/// The tokens of all stories of a split, one end-of-text token between each two stories and none at either end.
///
/// `Sync`: threads may read the same stream.
#[derive(Debug)]
pub struct TokenStream {
    source: Source,
    len: u64,
    utf8_bytes: u64,
    vocab_size: usize,
    fingerprint: Fingerprint,
    /// Of the tokenizer that made the ids, where it is known.
    tokenizer: Option<Fingerprint>,
}

#[derive(Debug)]
enum Source {
    Memory(Vec<u32>),
    /// Each shard with the position of its first token.
    Shards(Vec<(u64, ShardReader)>),
}

impl TokenStream {
    /// Opens the split `train` or `valid` of a folder that [`crate::prepare`] wrote, and reads every shard once
    /// to check it against its checksum.
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
        let (mut sum, mut tokenizer) = (Sum::new(), None);
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
            // The lengths are those of files: their sum cannot overflow, but the bytes are only numbers.
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
        let (source, fingerprint) = (Source::Shards(shards), sum.fingerprint());
        Ok(Self { source, len, utf8_bytes, vocab_size: summary.vocab_size, fingerprint, tokenizer })
    }

    /// The stories of a corpus in memory, without a folder of shards: the same stream that [`crate::prepare`]
    /// makes of them. Stops reading after the story with which it reaches `max_tokens`.
    ///
    /// # Errors
    /// What is wrong with the corpus ([`Error::NoStories`] if it is empty) or the tokenizer
    /// ([`Error::NoEndOfText`]).
    pub fn from_corpus(path: &Path, tokenizer: &Tokenizer, max_tokens: u64) -> Result<Self> {
        Self::from_stories(Corpus::open(path)?.stories()?, path, tokenizer, max_tokens)
    }

    /// As [`TokenStream::from_corpus`], of stories that somebody hands out; `path` names them in errors.
    ///
    /// # Errors
    /// The first of `stories`, and as [`TokenStream::from_corpus`].
    pub fn from_stories(
        stories: impl Iterator<Item = Result<String>>,
        path: &Path,
        tokenizer: &Tokenizer,
        max_tokens: u64,
    ) -> Result<Self> {
        let end_of_text = tokenizer.end_of_text_or_error()?;
        let mut encoder = tokenizer.encoder();
        let (mut tokens, mut utf8_bytes) = (Vec::new(), 0);
        for (index, story) in stories.enumerate() {
            let story = story?;
            if index > 0 {
                tokens.push(end_of_text);
            }
            encoder.encode(&story, &mut tokens).map_err(|source| Error::Story {
                path: path.to_owned(),
                story: index as u64 + 1,
                source: Box::new(source),
            })?;
            utf8_bytes += story.len() as u64;
            if tokens.len() as u64 >= max_tokens {
                break;
            }
        }
        if tokens.is_empty() {
            return Err(Error::NoStories { path: path.to_owned() });
        }
        Ok(Self { utf8_bytes, ..Self::from_tokens(tokens, tokenizer.vocab_size())? })
    }

    /// A stream in memory, whose [`TokenStream::utf8_bytes`] is 0 because nobody has said how many there are.
    ///
    /// # Errors
    /// [`Error::TokenBeyondVocabulary`].
    pub fn from_tokens(tokens: Vec<u32>, vocab_size: usize) -> Result<Self> {
        check_ids(&tokens, 0, vocab_size, || "tokens in memory".into())?;
        let len = tokens.len() as u64;
        let mut sum = Sum::new();
        sum.add_ids(&tokens);
        let (source, fingerprint) = (Source::Memory(tokens), sum.fingerprint());
        Ok(Self { source, len, utf8_bytes: 0, vocab_size, fingerprint, tokenizer: None })
    }

    /// Tokens in the stream.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// UTF-8 bytes of all the stories; the tokens between them count none.
    pub fn utf8_bytes(&self) -> u64 {
        self.utf8_bytes
    }

    /// Every id is below this.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// What makes it the same stream again, wherever it lies.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Checks that its ids are those of `tokenizer`, which `path` names in errors. Shards of before version 2 do not
    /// say whose ids they hold: they are taken as they are.
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
    /// [`Error::OutOfRange`] if they are not all there; [`Error::Read`]; [`Error::TokenBeyondVocabulary`].
    pub fn read(&self, start: u64, out: &mut [u32]) -> Result<()> {
        let count = out.len() as u64;
        if start.checked_add(count).is_none_or(|end| end > self.len) {
            return Err(Error::OutOfRange { start, count, len: self.len });
        }
        match &self.source {
            Source::Memory(tokens) => {
                let start = start as usize;
                out.copy_from_slice(&tokens[start..start + out.len()]);
                Ok(())
            }
            Source::Shards(shards) => read_shards(shards, start, out),
        }
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
