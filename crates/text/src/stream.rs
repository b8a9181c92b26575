//! One split of a prepared corpus as one long row of tokens, read at random.

use std::path::Path;

use crate::corpus::{Corpus, Found, Row};
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, Sum};
use crate::prepare::PrepareSummary;
use crate::shard::{ShardReader, check_ids};
use crate::tokenizer::{Encoder, Tokenizer};

/// The tokens of all stories of a split, one end-of-text token between each two stories and none at either end.
///
/// `Sync`: threads may read the same stream.
#[derive(Debug)]
pub struct TokenStream {
    source: Source,
    len: u64,
    utf8_bytes: u64,
    vocab_size: usize,
    found: Found,
    fingerprint: Fingerprint,
    /// Of the tokenizer that made the ids, where it is known.
    tokenizer: Option<Fingerprint>,
}

/// Tokens that are read at once to find the end of a story.
const PART: usize = 1 << 16;

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
        let (source, fingerprint, found) = (Source::Shards(shards), sum.fingerprint(), info.found());
        Ok(Self { source, len, utf8_bytes, vocab_size: summary.vocab_size, found, fingerprint, tokenizer })
    }

    /// The stories of a corpus in memory, without a folder of shards: the same stream that [`crate::prepare`]
    /// makes of them. Stops reading after the story with which it reaches `max_tokens`.
    ///
    /// # Errors
    /// What is wrong with the corpus ([`Error::NoStories`] if it is empty) or the tokenizer
    /// ([`Error::NoEndOfText`]).
    pub fn from_corpora(corpora: &[Corpus], tokenizer: &Tokenizer, max_tokens: u64) -> Result<Self> {
        let mut row = Row::new(corpora);
        let mut stream = Gathered::new(tokenizer, max_tokens)?;
        let mut read = 0;
        while let Some(story) = row.next().transpose()? {
            read += 1;
            if stream.push(&story.text, story.path, story.number)? {
                break;
            }
        }
        // Of the last record, stories may be left that nobody asked for.
        let found = Found { stories: read, ..row.found() };
        let path = corpora.first().map_or(Path::new("no file"), Corpus::path);
        Ok(Self { found, ..stream.finish(path)? })
    }

    /// As [`TokenStream::from_corpora`], of stories that somebody hands out; `path` names them in errors.
    ///
    /// # Errors
    /// The first of `stories`, and as [`TokenStream::from_corpora`].
    pub fn from_stories(
        stories: impl Iterator<Item = Result<String>>,
        path: &Path,
        tokenizer: &Tokenizer,
        max_tokens: u64,
    ) -> Result<Self> {
        let mut stream = Gathered::new(tokenizer, max_tokens)?;
        let mut found = Found::default();
        for story in stories {
            found.stories += 1;
            if stream.push(&story?, path, found.stories)? {
                break;
            }
        }
        Ok(Self { found, ..stream.finish(path)? })
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
        let (source, fingerprint, found) = (Source::Memory(tokens), sum.fingerprint(), Found::default());
        Ok(Self { source, len, utf8_bytes: 0, vocab_size, found, fingerprint, tokenizer: None })
    }

    /// As much of the stream as reading a corpus up to `max_tokens` would give: all of it, or up to the end of the story
    /// that reaches so many. Its fingerprint stays that of the whole.
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
                // How many bytes and stories are left is written nowhere.
                let found = Found::default();
                return Ok(Self { len: at + end as u64, utf8_bytes: 0, found, ..self });
            }
            at += part.len() as u64;
        }
        Ok(self)
    }

    /// What was found in the corpus; nothing where nobody has said it.
    pub fn found(&self) -> Found {
        self.found
    }

    /// Tokens in the stream.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// UTF-8 bytes of all the stories; the tokens between them count none. 0 where nobody has said it.
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

/// A stream in the making.
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

    /// Appends a story, story `number` of `path`; `true` once there are enough tokens.
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
