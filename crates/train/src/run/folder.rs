//! The run folder: beginning it, saving into it, and finding where to go on.

use super::data::{Data, Identity};
use super::trainer::{State, Trainer};
use super::{Job, Record};
use crate::error::{Error, Result};
use crate::parameters::Layout;
use crate::recipe::Recipe;
use offramp_model::checkpoint::{
    self, read_tensors, remove_leftovers, replace_folder, step_folder, steps, write_atomically, write_tensors,
};
use offramp_model::journal::{self, Journal};
use offramp_model::{Config, TensorSpec, Weights};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

const RECIPE: &str = "recipe.toml";
const JOURNAL: &str = "journal.jsonl";
const MODEL: &str = "model";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
const VERSION: u32 = 1;

/// An open run folder.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    journal: Journal,
    _lock: Option<File>,
}

/// `state.json`: what a checkpoint knows beside weights and moments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedState {
    version: u32,
    #[serde(flatten)]
    state: State,
    corpus: Identity,
}

impl RunFolder {
    /// Begins the run of a job, or finds the checkpoint from which it goes on.
    pub(super) fn begin(job: &Job<'_>, data: &Data) -> Result<(Self, Option<(PathBuf, State)>)> {
        let path = &job.folder;
        match (check_new(path), job.resume) {
            (Ok(()), true) => return Err(Error::NoRun { path: path.clone() }),
            (new, false) => new?,
            (Err(_), true) => (), // what there is to go on with
        }
        std::fs::create_dir_all(path).map_err(|error| Error::write(path, error))?;
        let lock = lock(path)?;
        let checkpoint = if job.resume { resume(job, data)? } else { None };
        if !job.resume {
            let text = job.recipe.text().as_bytes();
            write_atomically(&path.join(RECIPE), |file| file.write_all(text))?;
        }
        let journal_path = path.join(JOURNAL);
        journal::truncate_after(&journal_path, checkpoint.as_ref().map_or(0, |(_, state)| state.step))?;
        let journal = Journal::open(&journal_path)?;
        Ok((Self { path: path.clone(), journal, _lock: lock }, checkpoint))
    }

    /// Appends a line to the journal.
    pub(super) fn journal(&mut self, record: &Record) -> Result<()> {
        Ok(self.journal.append(record)?)
    }

    /// Where the checkpoint of `step` is kept.
    pub(super) fn step_folder(&self, step: u64) -> PathBuf {
        step_folder(&self.path, step)
    }

    /// Saves a checkpoint, whole or not at all.
    pub(super) fn save(&self, trainer: &Trainer, data: &Data) -> Result<PathBuf> {
        let target = self.step_folder(trainer.state.step);
        // So that no checkpoint is ahead of its journal, even where the power fails.
        if let Ok(journal) = File::options().append(true).open(self.path.join(JOURNAL)) {
            let _ = journal.sync_all();
        }
        replace_folder(&target, |folder| {
            write_model(folder, trainer, data)?;
            write_moments(&folder.join(OPTIMIZER), trainer)?;
            let state =
                SavedState { version: VERSION, state: trainer.state.clone(), corpus: data.identity.clone() };
            let json = serde_json::to_vec_pretty(&state).expect("numbers and strings are JSON");
            write_atomically(&folder.join(STATE), |file| file.write_all(&json))
        })?;
        Ok(target)
    }

    /// Writes the finished model, and returns its folder.
    pub(super) fn export(&self, trainer: &Trainer, data: &Data) -> Result<PathBuf> {
        let target = self.path.join(MODEL);
        replace_folder(&target, |folder| write_model(folder, trainer, data))?;
        Ok(target)
    }

    /// Removes all checkpoints but the newest `keep`.
    pub(super) fn prune(&self, keep: usize) -> Result<()> {
        let steps = steps(&self.path)?;
        for (_, old) in &steps[..steps.len().saturating_sub(keep)] {
            std::fs::remove_dir_all(old).map_err(|error| Error::write(old, error))?;
        }
        Ok(())
    }
}

/// Checks that there is no run in a folder yet; there may be no folder.
///
/// # Errors
/// If there is one, which says how far it has come.
pub fn check_new(path: &Path) -> Result<()> {
    let exists = |state: String| Err(Error::RunExists { path: path.to_owned(), state });
    if path.join(MODEL).exists() {
        return exists("finished".to_owned());
    }
    if path.is_dir() {
        if let Some((step, _)) = steps(path)?.last() {
            return exists(format!("saved at step {step}"));
        }
        if path.join(RECIPE).exists() || path.join(JOURNAL).exists() {
            return exists("not yet saved".to_owned());
        }
    }
    Ok(())
}

/// Keeps other processes out of a run folder until it is dropped: two would overwrite each other's checkpoints.
/// Where a folder cannot be locked (Windows, some network disks) nothing is kept out.
fn lock(path: &Path) -> Result<Option<File>> {
    let Ok(folder) = File::open(path) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(Error::RunBusy { path: path.to_owned() }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// The newest checkpoint of a run that this job may go on with; none if it was never saved.
fn resume(job: &Job<'_>, data: &Data) -> Result<Option<(PathBuf, State)>> {
    let (path, recipe) = (&job.folder, job.recipe);
    let begun_with = path.join(RECIPE);
    if let Some((key, found, expected)) = recipe.difference(&Recipe::read(&begun_with)?) {
        return Err(Error::ChangedRecipe { path: recipe.path().to_owned(), key, found, expected });
    }
    remove_leftovers(path);
    let Some((step, newest)) = steps(path)?.pop() else {
        // Beginning again would overwrite it.
        let finished = path.join(MODEL).exists();
        return if finished { Err(Error::NoCheckpoint { path: path.clone() }) } else { Ok(None) };
    };
    let saved = read_state(&newest.join(STATE), step)?;
    data.check(&saved.corpus)?;
    Ok(Some((newest, saved.state)))
}

fn read_state(path: &Path, step: u64) -> Result<SavedState> {
    let text = std::fs::read(path).map_err(|error| Error::state(path, error))?;
    let saved: SavedState = serde_json::from_slice(&text).map_err(|error| Error::state(path, error))?;
    if saved.version != VERSION {
        let reason = format!("its version is {}, and this program reads {VERSION}", saved.version);
        return Err(Error::state(path, reason));
    }
    if saved.state.step != step {
        let reason = format!("it is of step {}, its folder of step {step}", saved.state.step);
        return Err(Error::state(path, reason));
    }
    Ok(saved)
}

/// A trainer as a checkpoint left it.
pub(super) fn load(folder: &Path, recipe: &Recipe, config: Config, state: State) -> Result<Trainer> {
    let weights = vec![0.0; Layout::new(&config).len()];
    let mut trainer = Trainer::with(recipe, config, weights, state)?;
    let unusable = |error| Error::Checkpoint { path: folder.to_owned(), source: Box::new(error) };
    read_values(folder, &mut trainer).map_err(unusable)?;
    Ok(trainer)
}

/// Reads a checkpoint's weights and moments.
fn read_values(folder: &Path, trainer: &mut Trainer) -> offramp_model::Result<()> {
    let layout = trainer.layout().clone();
    let files = Weights::open(folder, trainer.config())?;
    for (spec, range) in layout.tensors() {
        trainer.weights[range].copy_from_slice(files.take(spec)?.as_slice());
    }
    let specs = moments(&layout);
    let saved = read_tensors(&folder.join(OPTIMIZER), &specs)?;
    let (m, v) = saved.split_at(specs.len() / 2);
    for ((_, range), (m, v)) in layout.tensors().zip(m.iter().zip(v)) {
        trainer.optimizer.m[range.clone()].copy_from_slice(m.as_slice());
        trainer.optimizer.v[range].copy_from_slice(v.as_slice());
    }
    Ok(())
}

/// A model folder: config, weights, tokenizer.
fn write_model(folder: &Path, trainer: &Trainer, data: &Data) -> offramp_model::Result<()> {
    let places: Vec<_> = trainer.layout().tensors().collect();
    let mut places = places.into_iter();
    checkpoint::save(folder, trainer.config(), &mut |spec| {
        let (_, range) = places.find(|(place, _)| *place == spec).expect("the layout has the config's order");
        Cow::Borrowed(&trainer.weights[range])
    })?;
    write_atomically(&folder.join("tokenizer.json"), |file| file.write_all(&data.tokenizer_json))
}

/// The moments' names and shapes: all first ones, then all second ones.
fn moments(layout: &Layout) -> Vec<TensorSpec> {
    let named = |moment: &'static str| {
        layout.tensors().map(move |(spec, _)| TensorSpec::new(format!("{moment}.{}", spec.name), &spec.shape))
    };
    named("m").chain(named("v")).collect()
}

fn write_moments(path: &Path, trainer: &Trainer) -> offramp_model::Result<()> {
    let (layout, optimizer) = (trainer.layout(), &trainer.optimizer);
    let in_order = |moment| layout.tensors().map(move |(_, range)| (moment, range));
    let mut places = in_order(&optimizer.m).chain(in_order(&optimizer.v));
    write_tensors(path, &moments(layout), &mut |_| {
        let (moment, range) = places.next().expect("as many places as moments");
        Cow::Borrowed(&moment[range])
    })
}
