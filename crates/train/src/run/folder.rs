//! The run folder: beginning it, saving into it, and finding where to go on.

use super::checkpoint::{check_space, model_size, read_values, size, write_all, write_model};
use super::data::Data;
use super::job::{Event, Job};
use super::state::{Best, SavedState};
use super::together;
use super::trainer::Trainer;
use crate::averages::Average;
use crate::error::{Error, Result};
use crate::recipe::{Difference, Recipe};
use crate::schedule::Schedule;
use crate::start;
use offramp_model::Config;
use offramp_model::checkpoint::{remove_folder, remove_leftovers, replace_folder, write_atomically};
use offramp_model::journal::{self, CheckpointRecord, Journal, Record, ValidationRecord};
use offramp_model::run_folder::{JOURNAL, MODEL, RECIPE, START, step_folder, steps};
use offramp_ranks::Ranks;
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// An open run folder.
#[derive(Debug)]
pub(super) struct RunFolder {
    path: PathBuf,
    journal: Journal,
    best: Option<Best>,
    _lock: Option<File>,
}

/// A checkpoint to go on from. Its files are what was written.
#[derive(Debug)]
pub(super) struct Found {
    folder: PathBuf,
    saved: SavedState,
    before: Option<u64>, // the checkpoint before it
    begun: Recipe,       // the run's recipe so far
}

impl RunFolder {
    /// Begins the run of a job, or finds the checkpoint from which it goes on.
    pub(super) fn begin(job: &Job<'_>, data: &Data) -> Result<(Self, Option<Found>)> {
        let path = &job.folder;
        match (check_new(path), job.resume) {
            (Ok(()), true) => return Err(Error::NoRun { path: path.clone() }),
            (new, false) => new?,
            (Err(_), true) => (), // the run to resume
        }
        std::fs::create_dir_all(path).map_err(|error| Error::write(path, error))?;
        let lock = lock(path)?;
        let found = if job.resume { resume(job, data)? } else { None };
        keep(job)?;
        let journal_path = path.join(JOURNAL);
        let step = found.as_ref().map_or(0, |found| found.saved.state().step);
        journal::truncate_after(&journal_path, step)?;
        let journal = Journal::open(&journal_path)?;
        let best = found.as_ref().and_then(|found| found.saved.best.clone());
        Ok((Self { path: path.clone(), journal, best, _lock: lock }, found))
    }

    /// Whether the checkpoint of `step` has its line in the journal, which is written last.
    pub(super) fn is_settled(&self, step: u64) -> Result<bool> {
        let is_this = |record: &Record| matches!(record, Record::Checkpoint(saved) if saved.step == step);
        Ok(journal::read(&self.path.join(JOURNAL))?.iter().any(is_this))
    }

    /// The journal's record of the validation after `step`.
    pub(super) fn validation(&self, step: u64) -> Result<Option<ValidationRecord>> {
        let records = journal::read(&self.path.join(JOURNAL))?.into_iter();
        let mut found = records.filter_map(|record| match record {
            Record::Validation(record) if record.step == step => Some(record),
            _ => None,
        });
        Ok(found.next())
    }

    /// Appends a line to the journal.
    pub(super) fn journal(&mut self, record: &Record) -> Result<()> {
        Ok(self.journal.append(record)?)
    }

    /// Appends the line of a checkpoint that is on disk.
    pub(super) fn journal_checkpoint(&mut self, step: u64) -> Result<()> {
        let name = |step| step_folder(Path::new(""), step).display().to_string();
        let best = self.best.as_ref().map(|best| name(best.step));
        self.journal(&Record::Checkpoint(CheckpointRecord { step, folder: name(step), best }))
    }

    /// Where the checkpoint of `step` is kept.
    pub(super) fn step_folder(&self, step: u64) -> PathBuf {
        step_folder(&self.path, step)
    }

    /// Checks that the disk has room for a checkpoint.
    pub(super) fn check_space(&self, trainer: &Trainer, data: &Data) -> Result<()> {
        let target = self.step_folder(trainer.state.step);
        check_space(&self.path, &target, size(&target, trainer, data)?)
    }

    /// Saves a checkpoint, whole or not at all.
    /// The other ranks give their moments at the same time ([`Trainer::give_moments`]).
    pub(super) fn save(&mut self, trainer: &Trainer, data: &Data, ranks: &mut Ranks) -> Result<PathBuf> {
        self.check_space(trainer, data)?;
        let target = self.step_folder(trainer.state.step);
        // Even where the power fails, no checkpoint may be ahead of its journal.
        if let Ok(journal) = File::options().append(true).open(self.path.join(JOURNAL)) {
            let _ = journal.sync_all();
        }
        replace_folder(&target, |folder| {
            let files = write_all(folder, trainer, data, ranks)?;
            SavedState::new(&trainer.state, self.best.clone(), data.identity.clone(), files).write(folder)
        })?;
        Ok(target)
    }

    /// Marks the checkpoint of `step` as the best if no loss so far is as low as its own.
    pub(super) fn judge(&mut self, step: u64, loss: f64) -> Result<()> {
        if self.best.as_ref().is_none_or(|best| loss < best.loss) {
            let (folder, best) = (self.step_folder(step), Some(Best { step, loss }));
            SavedState::read(&folder, step, None)?.with_best(best.clone()).write(&folder)?;
            self.best = best;
        }
        Ok(())
    }

    /// Writes the finished model, and returns its folder.
    pub(super) fn export(&self, trainer: &Trainer, data: &Data) -> Result<PathBuf> {
        self.export_as(self.path.join(MODEL), &trainer.weights, trainer, data)
    }

    /// Writes each average as a finished model of its own, and returns their folders.
    pub(super) fn export_averages(&self, trainer: &Trainer, data: &Data) -> Result<Vec<PathBuf>> {
        let begun = trainer.averages.iter().filter(|average| average.has_begun(trainer.state.step));
        let target = |average: &Average| self.path.join(format!("{MODEL}-{}", average.name()));
        begun.map(|average| self.export_as(target(average), &average.values, trainer, data)).collect()
    }

    fn export_as(&self, target: PathBuf, weights: &[f32], trainer: &Trainer, data: &Data) -> Result<PathBuf> {
        check_space(&self.path, &target, model_size(&target, trainer, data)?)?;
        replace_folder(&target, |folder| write_model(folder, weights, trainer, data).map(drop))?;
        Ok(target)
    }

    /// Makes the best checkpoint the finished model, and returns its folder.
    pub(super) fn export_best(&self) -> Result<PathBuf> {
        let Some(Best { step, .. }) = self.best else {
            return Err(Error::NoBest { path: self.path.clone() });
        };
        let (from, target) = (self.step_folder(step), self.path.join(MODEL));
        let saved = SavedState::read(&from, step, None)?;
        let damaged =
            |source| Error::Checkpoint { path: from.clone(), source: Box::new(source), before: None };
        saved.check_files(&from).map_err(damaged)?;
        let size = |name: &str| std::fs::metadata(from.join(name)).map_or(0, |file| file.len());
        check_space(&self.path, &target, saved.model_files().map(size).sum())?;
        replace_folder(&target, |folder| {
            saved.model_files().try_for_each(|name| {
                let copy = |out: &mut dyn Write| io::copy(&mut File::open(from.join(name))?, out).map(drop);
                write_atomically(&folder.join(name), copy).map(drop)
            })
        })?;
        Ok(target)
    }

    /// The checkpoint with the lowest validation loss so far.
    pub(super) fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// Removes all checkpoints but the newest `keep` and the best.
    pub(super) fn prune(&self, keep: usize) -> Result<()> {
        let steps = steps(&self.path)?;
        let best = self.best.as_ref().map(|best| best.step);
        let mut old = steps[..steps.len().saturating_sub(keep)].iter();
        old.try_for_each(|(step, folder)| match Some(*step) == best {
            true => Ok(()),
            false => Ok(remove_folder(folder)?),
        })
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

/// Keeps other processes out of a run folder until it is dropped: two would overwrite each other's
/// checkpoints. Where a folder cannot be locked (Windows, some network disks), other processes are not kept
/// out.
fn lock(path: &Path) -> Result<Option<File>> {
    let Ok(folder) = File::open(path) else { return Ok(None) };
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Err(Error::RunBusy { path: path.to_owned() }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// The newest checkpoint of a run that this job may go on with; none if it was never saved.
fn resume(job: &Job<'_>, data: &Data) -> Result<Option<Found>> {
    let (path, recipe) = (&job.folder, job.recipe);
    let begun_with = path.join(RECIPE);
    let begun = Recipe::read_for_run(&begun_with, path)?;
    if let Some(Difference { key, now, before }) = recipe.difference(&begun) {
        let path = recipe.path().to_owned();
        return Err(Error::ChangedRecipe { path, key, found: now, expected: before });
    }
    remove_leftovers(path);
    let mut steps = steps(path)?;
    let Some((step, folder)) = steps.pop() else {
        // A new run would overwrite the finished model.
        let finished = path.join(MODEL).exists();
        return if finished { Err(Error::NoCheckpoint { path: path.clone() }) } else { Ok(None) };
    };
    let before = steps.last().map(|(step, _)| *step);
    let saved = SavedState::read(&folder, step, before)?;
    data.check(&saved.corpus)?;
    if Schedule::new(recipe).takes_back(&Schedule::new(&begun), step) {
        let (steps, before) = (recipe.training.steps, begun.training.steps);
        return Err(Error::StageTakenBack { path: recipe.path().to_owned(), steps, before });
    }
    let found = Found { folder, saved, before, begun };
    remove_leftovers(&found.folder); // of a state that was being rewritten
    found.usable(|found| found.saved.check_files(&found.folder))?;
    Ok(Some(found))
}

/// Keeps the recipe, and the sizes that it takes from elsewhere. The run needs nothing else to go on.
fn keep(job: &Job<'_>) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = job.folder.join(name);
        let same = std::fs::read(&path).is_ok_and(|before| before == text.as_bytes());
        if same { Ok(()) } else { write_atomically(&path, |file| file.write_all(text.as_bytes())).map(drop) }
    };
    if let Some(config) = job.recipe.begins_as() {
        write(START, &config.to_json())?;
    }
    Ok(write(RECIPE, job.recipe.text())?)
}

impl Found {
    /// The event of a run that goes on for more steps than it was begun for.
    pub(super) fn longer(&self, recipe: &Recipe) -> Option<Event<'static>> {
        let (before, steps) = (self.begun.training.steps, recipe.training.steps);
        let rate = |recipe: &Recipe| Schedule::new(recipe).learning_rate(self.saved.state().step);
        let learning_rates = [rate(&self.begun), rate(recipe)];
        (steps > before).then_some(Event::Longer { before, steps, learning_rates })
    }

    /// Turns an error of `work` into one that says that the checkpoint cannot be used.
    fn usable(&self, work: impl FnOnce(&Self) -> offramp_model::Result<()>) -> Result<()> {
        let (path, before) = (self.folder.clone(), self.before);
        work(self).map_err(|error| Error::Checkpoint { path, source: Box::new(error), before })
    }
}

/// A trainer as a checkpoint left it, which the first rank has found. The others get their values from it.
pub(super) fn load(
    found: Option<&Found>,
    recipe: &Recipe,
    config: Config,
    ranks: &mut Ranks,
) -> Result<Trainer> {
    let weights = vec![0.0; start::layout(recipe, &config).len()];
    let mut trainer = Trainer::new(recipe, config, weights, ranks)?;
    let state = found.map(|found| found.saved.state()).unwrap_or_default();
    trainer.state = together::state_of_first(ranks, state);
    match found {
        Some(found) => found.usable(|found| read_values(&found.folder, &mut trainer, ranks))?,
        None => trainer.take_values(ranks),
    }
    Ok(trainer)
}
