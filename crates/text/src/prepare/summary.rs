//! `corpus.json`: what a prepared folder holds.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::corpus::Found;
use crate::error::{Error, Result};
use offramp_files::one_line;

const FORMAT: &str = "offramp-corpus";
const VERSION: u32 = 2;

/// What a prepared folder holds, as [`crate::prepare`] returns it and `corpus.json` keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrepareSummary {
    /// Where the tokenizer came from: `gpt2`, `file` or `trained`.
    pub tokenizer: String,
    /// Every id is below this; what a model's `vocab_size` must reach.
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
    /// Names of the files it was made from, in order, without their folders.
    pub sources: Vec<String>,
    /// Stories, none of them empty.
    pub stories: u64,
    /// Tokens, those between stories included.
    pub tokens: u64,
    /// UTF-8 bytes of the stories.
    pub utf8_bytes: u64,
    /// Records without a text (null, missing or empty), which were skipped.
    #[serde(default)]
    pub skipped: u64,
    /// Texts in which CRLF was read as LF.
    #[serde(default)]
    pub crlf: u64,
    /// Lines of all stories; 0 in folders of earlier builds.
    #[serde(default)]
    pub lines: u64,
    /// Its shards' file names, in order.
    pub shards: Vec<String>,
}

impl SplitSummary {
    /// What was found in its files.
    pub fn found(&self) -> Found {
        Found { stories: self.stories, skipped: self.skipped, crlf: self.crlf, lines: self.lines }
    }
}

/// What every version begins with.
#[derive(Deserialize)]
struct Head {
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
    /// Reads the `corpus.json` of a prepared folder.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Manifest`] if it is damaged or of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = Self::file_in(folder);
        let text = fs::read(&path).map_err(|e| Error::read(&path, e))?;
        let fault = |reason: String| Error::Manifest { path: path.clone(), reason };
        let Head { format, version } =
            serde_json::from_slice(&text).map_err(|e| fault(one_line(&e.to_string())))?;
        if (format.as_str(), version) != (FORMAT, VERSION) {
            let (format, expected) = (one_line(&format), format!("expected \"{FORMAT}\" version {VERSION}"));
            return Err(fault(format!("format \"{format}\" version {version}, {expected}")));
        }
        let summary: Self = serde_json::from_slice(&text).map_err(|e| fault(one_line(&e.to_string())))?;
        // A manifest may name files of its own folder only.
        let outside = |name: &&String| {
            let plain = Path::new(name.as_str()).file_name() == Some(std::ffi::OsStr::new(name.as_str()));
            !plain || name.contains(char::is_control)
        };
        if let Some(name) = summary.splits().flat_map(|(_, split)| &split.shards).find(outside) {
            return Err(fault(format!("\"{}\" is not a file name", one_line(name))));
        }
        Ok(summary)
    }

    /// Whether a folder was prepared, or is what was left of preparing it: whether it holds shards.
    pub fn is_in(folder: &Path) -> bool {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().ends_with(".tokens"))
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
