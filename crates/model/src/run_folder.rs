//! A run folder: what training leaves, and what each file is called.
//!
//! ```text
//! recipe.toml      the recipe as it was given last
//! start.json       the config of the model that the run began from, where it did
//! corpus/          the prepared corpus, where the recipe names the stories themselves
//! journal.jsonl    one line for each step, validation and checkpoint
//! curves.svg       the journal, drawn
//! step-000120/     a checkpoint; the newest few and the best
//! model/           the finished model
//! model-ema/       an exponential moving average of the weights, where the recipe asks for it
//! model-swa/       a plain mean of the weights of some steps, where the recipe asks for it
//! ```
//!
//! A checkpoint is a model folder (`config.json`, `model.safetensors`, `tokenizer.json`, …) with what the run
//! needs to go on beside it:
//!
//! ```text
//! optimizer.safetensors    the moments
//! state.json               where the run stands, and the checksum of every file
//! ```

use crate::error::{Error, Result};
use crate::journal::{self, Record};
use std::fs;
use std::path::{Path, PathBuf};

/// The recipe as it was given last.
pub const RECIPE: &str = "recipe.toml";
/// The config of the model that the run began from.
pub const START: &str = "start.json";
/// The corpus that the run prepared for itself.
pub const CORPUS: &str = "corpus";
/// One line for each step, validation and checkpoint.
pub const JOURNAL: &str = "journal.jsonl";
/// The journal, drawn.
pub const CURVES: &str = "curves.svg";
/// The finished model's folder.
pub const MODEL: &str = "model";
/// What a checkpoint's name begins with.
const STEP: &str = "step-";

/// The config of a model folder.
pub const CONFIG: &str = "config.json";
/// How a model folder is sampled from.
pub const GENERATION: &str = "generation_config.json";
/// The weights of a model, in one file.
pub const WEIGHTS: &str = "model.safetensors";
/// Which shard holds which tensor, beside weights in several files.
pub const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
/// The norms and adapters of exits over a model that stays as it is, beside its weights.
pub const EXITS: &str = "exits.safetensors";
/// The tokenizer of a model folder.
pub const TOKENIZER: &str = "tokenizer.json";
/// How `transformers` takes the tokenizer.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The moments of a checkpoint.
pub const OPTIMIZER: &str = "optimizer.safetensors";
/// Where the run of a checkpoint stands.
pub const STATE: &str = "state.json";

/// Where a run folder keeps the checkpoint of `step`: `step-000120`.
pub fn step_folder(run: &Path, step: u64) -> PathBuf {
    run.join(format!("{STEP}{step:06}"))
}

/// Whether a folder is a model's.
pub(crate) fn is_model(folder: &Path) -> bool {
    folder.join(CONFIG).is_file()
}

/// The checkpoints of a run folder and their steps, oldest first.
///
/// # Errors
/// If the folder cannot be read.
pub fn steps(run: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = |error| Error::read(run, error);
    let mut steps = Vec::new();
    for entry in fs::read_dir(run).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let step = path.file_name().and_then(|name| name.to_str()?.strip_prefix(STEP)?.parse().ok());
        if let Some(step) = step.filter(|_| path.join(CONFIG).is_file()) {
            steps.push((step, path));
        }
    }
    steps.sort_unstable();
    Ok(steps)
}

/// The checkpoint with the lowest validation loss so far, and its step, as the journal names it; none if no
/// checkpoint was validated, or it is gone.
///
/// # Errors
/// If the journal cannot be read.
pub fn best(run: &Path) -> Result<Option<(u64, PathBuf)>> {
    let records = journal::read(&run.join(JOURNAL))?;
    let named = records.iter().rev().find_map(|record| match record {
        Record::Checkpoint(checkpoint) => Some(checkpoint.best.as_deref()),
        _ => None,
    });
    let Some(name) = named.flatten() else { return Ok(None) };
    Ok(steps(run)?.into_iter().find(|(_, folder)| folder.file_name().is_some_and(|found| found == name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{CheckpointRecord, Journal};

    #[test]
    fn the_best_is_the_one_that_the_journal_names_last() {
        let run = tempfile::tempdir().unwrap();
        let run = run.path();
        assert!(best(run).is_err(), "no journal");
        let mut journal = Journal::open(&run.join(JOURNAL)).unwrap();
        let mut saved = |step: u64, best: Option<u64>| {
            fs::create_dir(step_folder(run, step)).unwrap();
            fs::write(step_folder(run, step).join(CONFIG), "{}").unwrap();
            let name = |step| step_folder(Path::new(""), step).display().to_string();
            let record = CheckpointRecord { step, folder: name(step), best: best.map(name) };
            journal.append(&Record::Checkpoint(record)).unwrap();
        };
        saved(5, None);
        assert_eq!(best(run).unwrap(), None);
        saved(10, Some(10));
        saved(1_000_000, Some(10));
        assert_eq!(best(run).unwrap(), Some((10, step_folder(run, 10))));
        assert_eq!(steps(run).unwrap().len(), 3);
        fs::remove_dir_all(step_folder(run, 10)).unwrap();
        assert_eq!(best(run).unwrap(), None, "what is gone is not the best");
    }
}
