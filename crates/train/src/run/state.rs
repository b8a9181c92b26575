//! `state.json`: what a checkpoint keeps beside weights and moments, and the checksums that reveal damage to
//! its files.

use super::data::Identity;
use super::trainer::State;
use crate::error::{Error, Result};
use offramp_model::checkpoint::{Checksum, Checksums, write_atomically};
use offramp_model::legible;
use offramp_model::run_folder::{OPTIMIZER, STATE};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

const VERSION: u32 = 3;
/// The oldest version that can be resumed. It knows the training split only.
const OLDEST: u32 = 2;

/// The checkpoint with the lowest validation loss so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Steps made before it.
    pub step: u64,
    /// Nats per token of the full model.
    pub loss: f64,
}

/// The file. Its keys stand here one by one, because serde cannot refuse unknown keys beside a flattened
/// struct.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedState {
    version: u32,
    step: u64,
    updates: u64,
    skipped: u64,
    skipped_in_a_row: u32,
    pub(super) best: Option<Best>,
    pub(super) corpus: Identity,
    files: Checksums,
    /// Of this file without it.
    itself: Option<Checksum>,
}

impl SavedState {
    pub(super) fn new(state: &State, best: Option<Best>, corpus: Identity, files: Checksums) -> Self {
        let &State { step, updates, skipped, skipped_in_a_row } = state;
        let version = VERSION;
        let saved = Self {
            version,
            step,
            updates,
            skipped,
            skipped_in_a_row,
            best: None,
            corpus,
            files,
            itself: None,
        };
        saved.with_best(best)
    }

    /// The same, with another best checkpoint.
    pub(super) fn with_best(mut self, best: Option<Best>) -> Self {
        (self.best, self.itself) = (best, None);
        self.itself = Some(self.checksum());
        self
    }

    /// Where the run stands.
    pub(super) fn state(&self) -> State {
        let &Self { step, updates, skipped, skipped_in_a_row, .. } = self;
        State { step, updates, skipped, skipped_in_a_row }
    }

    /// Writes it into a checkpoint's folder.
    pub(super) fn write(&self, folder: &Path) -> offramp_model::Result<()> {
        let json = serde_json::to_vec_pretty(self).expect("numbers and strings are JSON");
        write_atomically(&folder.join(STATE), |file| file.write_all(&json)).map(drop)
    }

    /// What a checkpoint's folder holds, which is of `step`; `before` is the checkpoint before it.
    pub(super) fn read(folder: &Path, step: u64, before: Option<u64>) -> Result<Self> {
        let path = folder.join(STATE);
        let fault = |reason: String| Error::State { path: path.clone(), reason, before };
        let text = std::fs::read(&path).map_err(|error| fault(error.to_string()))?;
        check_version(&text, &path)?;
        let mut saved: Self =
            serde_json::from_slice(&text).map_err(|error| fault(legible(&error.to_string())))?;
        let written = saved.itself.take();
        if written != Some(saved.checksum()) {
            return Err(fault("it is not what was written, its checksum is another".to_owned()));
        }
        match saved.step == step {
            true => Ok(saved),
            false => Err(fault(format!("it is of step {}, its folder of step {step}", saved.step))),
        }
    }

    /// Checks that every file of the folder is what was written.
    pub(super) fn check_files(&self, folder: &Path) -> offramp_model::Result<()> {
        self.files.iter().try_for_each(|(name, checksum)| checksum.check(&folder.join(name)))
    }

    /// The files of the model, without those that only the run needs.
    pub(super) fn model_files(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str).filter(|name| *name != OPTIMIZER)
    }

    /// The checksum of its content, whatever the spaces between.
    fn checksum(&self) -> Checksum {
        debug_assert!(self.itself.is_none(), "it is not part of itself");
        Checksum::of(&serde_json::to_vec(self).expect("numbers and strings are JSON"))
    }
}

/// A file of another version is not damaged, so the error must not tell the user to remove it.
fn check_version(text: &[u8], path: &Path) -> Result<()> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    match serde_json::from_slice(text) {
        Ok(Version { version }) if !(OLDEST..=VERSION).contains(&version) => {
            Err(Error::StateVersion { path: PathBuf::from(path), found: version, expected: VERSION })
        }
        _ => Ok(()),
    }
}
