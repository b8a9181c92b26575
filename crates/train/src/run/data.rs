//! A prepared corpus, as a run needs it.

use crate::error::{Error, Result};
use offramp_text::{PrepareSummary, TokenStream, Tokenizer};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Tokens that are read at a time to be summed up.
const PIECE: usize = 1 << 16;

/// Both splits of a prepared corpus and its tokenizer.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) folder: PathBuf,
    pub(super) train: TokenStream,
    pub(super) valid: Option<TokenStream>,
    pub(super) tokenizer: Tokenizer,
    /// `tokenizer.json` as it stands, for the model folders.
    pub(super) tokenizer_json: Vec<u8>,
    pub(super) identity: Identity,
}

/// What makes a training split the same one again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    tokens: u64,
    vocab_size: usize,
    checksum: String,
}

impl Data {
    /// Opens and checks a folder that `prepare` wrote.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let train = TokenStream::open(folder, "train")?;
        let has_valid = PrepareSummary::read(folder)?.valid.is_some();
        let valid = has_valid.then(|| TokenStream::open(folder, "valid")).transpose()?;
        // A split of fewer than two tokens predicts nothing.
        let valid = valid.filter(|valid| valid.len() >= 2);
        let path = folder.join("tokenizer.json");
        let tokenizer_json = std::fs::read(&path).map_err(|error| Error::read(&path, error))?;
        let tokenizer = Tokenizer::from_file(&path)?;
        let identity = Identity {
            tokens: train.len(),
            vocab_size: train.vocab_size(),
            checksum: format!("{:016x}", checksum(&train)?),
        };
        Ok(Self { folder: folder.to_owned(), train, valid, tokenizer, tokenizer_json, identity })
    }

    /// Every id in the corpus and every id of the tokenizer is below this.
    pub(super) fn vocab_size(&self) -> usize {
        self.train.vocab_size().max(self.tokenizer.vocab_size())
    }

    /// Checks that a run which began on `before` may go on here.
    pub(super) fn check(&self, before: &Identity) -> Result<()> {
        let now = &self.identity;
        let changed = |what: &'static str, found: String, expected: String| {
            Err(Error::ChangedCorpus { path: self.folder.clone(), what, found, expected })
        };
        if now.vocab_size != before.vocab_size {
            return changed("a vocabulary of", now.vocab_size.to_string(), before.vocab_size.to_string());
        }
        if now.tokens != before.tokens {
            return changed("training tokens:", now.tokens.to_string(), before.tokens.to_string());
        }
        if now.checksum != before.checksum {
            return changed("the checksum", now.checksum.clone(), before.checksum.clone());
        }
        Ok(())
    }
}

/// FNV-1a over the ids (Fowler, Noll and Vo), one id at a time.
fn checksum(stream: &TokenStream) -> Result<u64> {
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    let mut piece = vec![0; PIECE];
    let mut start = 0;
    while start < stream.len() {
        let count = (stream.len() - start).min(PIECE as u64) as usize;
        stream.read(start, &mut piece[..count])?;
        for &token in &piece[..count] {
            hash = (hash ^ u64::from(token)).wrapping_mul(0x0100_0000_01b3);
        }
        start += count as u64;
    }
    Ok(hash)
}
