//! A prepared corpus, as a run needs it.

use crate::error::{Error, Result};
use offramp_model::run_folder::{CORPUS, TOKENIZER};
use offramp_text::{Fingerprint, PrepareSummary, TokenStream, Tokenizer};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How many folders above a run folder are searched for a corpus that was moved.
const ABOVE: usize = 3;

/// Both splits of a prepared corpus and its tokenizer.
#[derive(Debug)]
pub(super) struct Data {
    pub(super) folder: PathBuf,
    pub(super) train: TokenStream,
    /// None where there is no such split, or nothing can be measured on it.
    pub(super) valid: Option<TokenStream>,
    pub(super) tokenizer: Tokenizer,
    /// `tokenizer.json` as it stands, for the model folders.
    pub(super) tokenizer_json: Vec<u8>,
    pub(super) identity: Identity,
}

/// What identifies a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Identity {
    tokens: u64,
    vocab_size: usize,
    checksum: Fingerprint,
    /// Left out before version 3 of `state.json`, as are the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokenizer: Option<Fingerprint>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    valid: Option<Split>,
}

/// What identifies a split; no tokens where there is no such split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Split {
    tokens: u64,
    checksum: Option<Fingerprint>,
}

impl Data {
    /// Opens and checks a folder that `prepare` wrote.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let train = TokenStream::open(folder, "train")?;
        let has_valid = PrepareSummary::read(folder)?.valid.is_some();
        let valid = has_valid.then(|| TokenStream::open(folder, "valid")).transpose()?;
        let path = folder.join(TOKENIZER);
        let tokenizer_json = std::fs::read(&path).map_err(|error| Error::read(&path, error))?;
        let tokenizer = Tokenizer::from_json(&tokenizer_json, &path)?;
        for split in std::iter::once(&train).chain(&valid) {
            split.check_tokenizer(&tokenizer, &path)?;
        }
        let identity = Identity {
            tokens: train.len(),
            vocab_size: train.vocab_size(),
            checksum: train.fingerprint(),
            tokenizer: Some(tokenizer.fingerprint()?),
            valid: Some(Split {
                tokens: valid.as_ref().map_or(0, TokenStream::len),
                checksum: valid.as_ref().map(TokenStream::fingerprint),
            }),
        };
        // A split of fewer than two tokens predicts nothing.
        let valid = valid.filter(|valid| valid.len() >= 2);
        Ok(Self { folder: folder.to_owned(), train, valid, tokenizer, tokenizer_json, identity })
    }

    /// Every id in the corpus and every id of the tokenizer is below this.
    pub(super) fn vocab_size(&self) -> usize {
        self.train.vocab_size().max(self.tokenizer.vocab_size())
    }

    /// Checks that a validation has something to measure. A run that went on without one may resume.
    pub(super) fn check_validation(&self) -> Result<()> {
        match self.identity.valid {
            Some(Split { tokens, checksum: Some(_) }) if self.valid.is_none() => {
                Err(Error::ShortValidation { path: self.folder.clone(), tokens })
            }
            _ => Ok(()),
        }
    }

    /// Checks that a run which began on `before` may go on with this corpus. What an older version did not
    /// keep is not compared.
    pub(super) fn check(&self, before: &Identity) -> Result<()> {
        let now = &self.identity;
        let equal = |what: &'static str, found: &dyn ToString, expected: &dyn ToString| {
            let (found, expected) = (found.to_string(), expected.to_string());
            let path = self.folder.clone();
            match found == expected {
                true => Ok(()),
                false => Err(Error::ChangedCorpus { path, what, found, expected }),
            }
        };
        equal("a vocabulary of", &now.vocab_size, &before.vocab_size)?;
        if let (Some(now), Some(before)) = (now.tokenizer, before.tokenizer) {
            equal("the tokenizer", &now, &before)?;
        }
        equal("training tokens:", &now.tokens, &before.tokens)?;
        equal("the training split", &now.checksum, &before.checksum)?;
        let (Some(now), Some(before)) = (now.valid, before.valid) else { return Ok(()) };
        let print = |split: Split| split.checksum.map_or("none".to_owned(), |print| print.to_string());
        equal("validation tokens:", &now.tokens, &before.tokens)?;
        equal("the validation split", &print(now), &print(before))
    }
}

/// The folder of the prepared corpus of a run that is resumed. It is where the recipe names it, or it was
/// moved with the recipe or with the run: its path, or its name, beside either of them. Its contents are
/// compared elsewhere, whatever its name.
///
/// # Errors
/// [`Error::NoCorpus`] if there is no prepared corpus in any of these places.
pub(crate) fn find_corpus(named: &Path, recipe: &Path, run: &Path) -> Result<PathBuf> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (recipe_file, run) = (absolute(recipe), absolute(run));
    let name = named.file_name().unwrap_or(CORPUS.as_ref());
    let near = recipe_file.parent().into_iter().chain(run.ancestors().take(1 + ABOVE));
    let places = near.flat_map(|place| [place.join(named), place.join(name)]);
    let mut all = std::iter::once(named.to_owned()).chain(places);
    all.find(|place| PrepareSummary::read(place).is_ok())
        .ok_or_else(|| Error::NoCorpus { named: named.to_owned(), recipe: recipe.to_owned() })
}
