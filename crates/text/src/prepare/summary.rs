//! `corpus.json`: the summary of a prepared folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::corpus::CorpusCounts;
use crate::error::{Error, Result};
use crate::shard;
use crate::tokenizer::Tokenizer;
use offramp_files::one_line;

const FORMAT: &str = "offramp-corpus";
const VERSION: u32 = 2;

/// The summary of a prepared folder. [`crate::prepare`] returns it, and `corpus.json` holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareSummary {
    /// Where the tokenizer came from: `gpt2`, `file` or `trained`.
    pub tokenizer: String,
    /// Every id is below this. A model's `vocab_size` must be at least as large.
    pub vocab_size: usize,
    /// The training split.
    pub train: SplitSummary,
    /// The validation split, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid: Option<SplitSummary>,
}

/// One split of a prepared corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitSummary {
    /// The names of its source files, in order, without folders.
    pub sources: Vec<String>,
    /// What was counted in these files.
    #[serde(flatten)]
    pub counts: CorpusCounts,
    /// Tokens, with those between stories.
    pub tokens: u64,
    /// UTF-8 bytes of the stories.
    pub utf8_bytes: u64,
    /// Its shards' file names, in order.
    pub shards: Vec<String>,
}

/// The beginning of every version of the file.
#[derive(Deserialize)]
struct ManifestHead {
    format: String,
    version: u32,
}

#[derive(Serialize)]
struct Manifest<'s> {
    format: &'s str,
    version: u32,
    #[serde(flatten)]
    summary: &'s PrepareSummary,
}

impl PrepareSummary {
    /// `splits` are the training split and, if there is one, the validation split.
    pub(super) fn of(kind: &str, tokenizer: &Tokenizer, splits: Vec<SplitSummary>) -> Self {
        let mut splits = splits.into_iter();
        Self {
            tokenizer: kind.to_owned(),
            vocab_size: tokenizer.vocab_size(),
            train: splits.next().expect("a training split"),
            valid: splits.next(),
        }
    }

    /// Reads the `corpus.json` of a prepared folder.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Manifest`] if it is damaged or of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = Self::file_in(folder);
        let text = fs::read(&path).map_err(|e| Error::read(&path, e))?;
        let fault = |reason: String| Error::Manifest { path: path.clone(), reason };
        let ManifestHead { format, version } =
            serde_json::from_slice(&text).map_err(|e| fault(one_line(&e.to_string())))?;
        if (format.as_str(), version) != (FORMAT, VERSION) {
            let (format, expected) = (one_line(&format), format!("expected \"{FORMAT}\" version {VERSION}"));
            return Err(fault(format!("format \"{format}\" version {version}, {expected}")));
        }
        let summary: Self = serde_json::from_slice(&text).map_err(|e| fault(one_line(&e.to_string())))?;
        // A manifest may name only files of its own folder.
        let outside = |name: &&String| {
            let plain = Path::new(name.as_str()).file_name() == Some(std::ffi::OsStr::new(name.as_str()));
            !plain || name.contains(char::is_control)
        };
        if let Some(name) = summary.splits().flat_map(|(_, split)| &split.shards).find(outside) {
            return Err(fault(format!("\"{}\" is not a file name", one_line(name))));
        }
        Ok(summary)
    }

    /// Whether a folder holds shards: it was prepared, or preparing it was interrupted.
    pub fn is_in(folder: &Path) -> bool {
        shard::are_in(folder)
    }

    pub(crate) fn file_in(folder: &Path) -> PathBuf {
        folder.join("corpus.json")
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let manifest = Manifest { format: FORMAT, version: VERSION, summary: self };
        let mut json = serde_json::to_string_pretty(&manifest).expect("strings and numbers are JSON");
        json.push('\n');
        let path = Self::file_in(folder);
        offramp_files::write_whole(&path, json.as_bytes()).map_err(|e| Error::write(&path, e))
    }

    /// The split called `train` or `valid`.
    pub fn split(&self, name: &str) -> Option<&SplitSummary> {
        self.splits().find(|(split, _)| *split == name).map(|(_, split)| split)
    }

    pub(crate) fn split_names(&self) -> Vec<&'static str> {
        self.splits().map(|(name, _)| name).collect()
    }

    pub(super) fn lists(&self, shard: &str) -> bool {
        self.splits().any(|(_, split)| split.shards.iter().any(|name| name == shard))
    }

    fn splits(&self) -> impl Iterator<Item = (&'static str, &SplitSummary)> {
        std::iter::once(("train", &self.train)).chain(self.valid.as_ref().map(|valid| ("valid", valid)))
    }
}
