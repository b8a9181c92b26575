//! A training run from its recipe to its model, in a folder of its own ([`offramp_model::run_folder`]).
//!
//! A run depends only on its recipe and its corpus. Batches, dropout and first weights come from generators
//! keyed by the seed and by counters. So a run that was stopped or killed resumes from its newest checkpoint
//! and ends in the same bytes as one that was not, whatever the number of threads. Another instruction set
//! may round in another way: there the same seed gives similar losses, not equal ones.

mod checkpoint;
mod data;
mod exchange;
mod folder;
mod job;
mod state;
#[cfg(test)]
mod tests;
mod together;
mod trainer;
mod validation;

use crate::error::{Error, Result};
use crate::memory;
use crate::recipe::Shuffle;
use crate::start;
use data::Data;
pub(crate) use data::find_corpus;
use folder::RunFolder;
pub use folder::check_new;
pub use job::{Event, Job, Summary};
use offramp_kernels::{active, pool};
use offramp_model::journal::{FinishRecord, Record, StartRecord, StepRecord, ValidationRecord};
use offramp_ranks::Ranks;
use offramp_text::Batches;
pub use state::Best;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};
pub(crate) use together::{check_recipes, of_first};
use trainer::Trainer;
use validation::Validation;

/// Steps in a row without a finite gradient after which a run gives up.
const HOPELESS: u32 = 10;

/// Trains what the recipe describes, from the start or from the newest checkpoint, in this process alone.
///
/// # Errors
/// As [`run_on`].
pub fn run(job: &Job<'_>, observe: &mut dyn FnMut(Event<'_>)) -> Result<Summary> {
    run_on(job, &mut Ranks::alone(), observe)
}

/// The same, in this process and in the others of `ranks`, which call it with the same recipe and corpus. The
/// first of them owns the run folder and is the only one that observes.
///
/// # Errors
/// If the corpus or the run folder cannot be read or written or belong to another recipe, the sizes are
/// impossible, the ranks differ, or the loss stays infinite. Checkpoints that were written stay whole. After
/// an error of one rank the others wait for it: [`Ranks::abort`] ends them.
pub fn run_on(job: &Job<'_>, ranks: &mut Ranks, observe: &mut dyn FnMut(Event<'_>)) -> Result<Summary> {
    let data = Data::open(&job.corpus)?;
    let recipe = job.recipe;
    if !job.resume {
        start::check_tokenizer(recipe, &data.tokenizer)?;
        data.check_validation()?;
    }
    if job.best && data.valid.is_none() {
        return Err(Error::NoBest { path: job.folder.clone() });
    }
    let config = recipe.config(data.vocab_size(), data.tokenizer.end_of_text())?;
    together::check(recipe, &data, ranks)?;
    memory::check(recipe, &config, ranks.size())?;
    let training = &recipe.training;
    // Before anything is written: a corpus that is too short leaves no folder behind.
    let batches = Batches::new(&data.train, training.batch_size, training.sequence_length, training.seed)
        .map_err(|source| Error::Corpus { path: job.corpus.clone(), source })?;
    let (folder, checkpoint) = match ranks.is_first() {
        true => RunFolder::begin(job, &data).map(|(folder, found)| (Some(folder), found))?,
        false => (None, None),
    };
    let batches = match training.shuffle {
        Shuffle::Windows => batches,
        Shuffle::Stories => {
            let end = data.tokenizer.end_of_text_or_error().map_err(Error::from)?;
            batches.shuffling_stories(end).map_err(Error::from)?
        }
    };
    let longer = checkpoint.as_ref().and_then(|found| found.longer(recipe));
    let mut rounded = Vec::new();
    let trainer = match together::of_first(ranks, checkpoint.is_some()) {
        true => folder::load(checkpoint.as_ref(), recipe, config, ranks)?,
        false => {
            if ranks.is_first() {
                rounded = start::rounded(recipe, &config)?;
            }
            together::first_weights(recipe, config, ranks)?
        }
    };
    if let Some(folder) = &folder {
        folder.prune(recipe.checkpoint.keep)?; // a killed run may not have done it
        if trainer.state.step < training.steps {
            folder.check_space(&trainer, &data)?; // better now than after the first hours
        }
    }
    let saved = trainer.state.step; // the checkpoint that it came from
    let began = Instant::now();
    let (data, validation) = (&data, None);
    let mut run = Run { job, data, batches, folder, trainer, ranks, observe, began, saved, validation };
    run.start()?;
    if let (Some(path), false) = (&recipe.start.checkpoint, rounded.is_empty()) {
        run.tell(Event::Rounded { path, formats: &rounded });
    }
    if let Some(event) = longer {
        run.tell(event);
    }
    run.all_steps()
}

/// A run under way.
struct Run<'a> {
    job: &'a Job<'a>,
    data: &'a Data,
    batches: Batches<'a>,
    folder: Option<RunFolder>, // the first rank's
    trainer: Trainer,
    ranks: &'a mut Ranks,
    observe: &'a mut dyn FnMut(Event<'_>),
    began: Instant,
    saved: u64, // the step of the newest checkpoint
    validation: Option<ValidationRecord>,
}

impl Run<'_> {
    /// Reports what happens, once for all ranks.
    fn tell(&mut self, event: Event<'_>) {
        if self.ranks.is_first() {
            (self.observe)(event);
        }
    }

    fn journal(&mut self, record: &Record) -> Result<()> {
        self.folder.as_mut().map_or(Ok(()), |folder| folder.journal(record))
    }

    /// Whether the run is to stop: on one rank, or on another.
    fn is_told_to_stop(&mut self) -> bool {
        together::any(self.ranks, self.job.stop.load(Ordering::Relaxed))
    }

    fn start(&mut self) -> Result<()> {
        let training = &self.job.recipe.training;
        let (step, parameters) = (self.trainer.state.step, self.trainer.config().parameter_count());
        let unix_time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs());
        self.journal(&Record::Start(StartRecord {
            step,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernels: active().name.to_owned(),
            threads: pool::threads(),
            parameters,
            seed: training.seed,
            unix_time,
            checkpoint: self.job.recipe.start.checkpoint.as_ref().map(|path| path.display().to_string()),
        }))?;
        self.tell(Event::Started {
            step,
            steps: training.steps,
            parameters,
            tokens_per_step: self.trainer.tokens_per_step(),
            train_tokens: self.data.train.len(),
            valid_tokens: self.data.valid.as_ref().map_or(0, |valid| valid.len()),
        });
        Ok(())
    }

    fn all_steps(mut self) -> Result<Summary> {
        let steps = self.job.recipe.training.steps;
        let mut last_step = None;
        let mut goes_on = self.catch_up()?;
        while goes_on && self.trainer.state.step < steps {
            goes_on = match self.step()? {
                None => self.leave()?,
                made => {
                    last_step = made;
                    self.after_step()?
                }
            };
        }
        debug_assert_eq!(self.saved, self.trainer.state.step, "the last step is saved");
        let step = self.trainer.state.step;
        let model = match &self.folder {
            None => PathBuf::new(),
            Some(folder) if !goes_on => folder.step_folder(step),
            Some(folder) if self.job.best => folder.export_best()?,
            Some(folder) => folder.export(&self.trainer, self.data)?,
        };
        let averages = match &self.folder {
            Some(folder) if goes_on => folder.export_averages(&self.trainer, self.data)?,
            _ => Vec::new(),
        };
        let seconds = self.began.elapsed().as_secs_f64();
        self.journal(&Record::Finish(FinishRecord { step, complete: goes_on, seconds }))?;
        let skipped = self.trainer.state.skipped;
        let (profile, validation) = (self.trainer.profile(), self.validation);
        let (stopped, best) = (!goes_on, self.folder.as_ref().and_then(|folder| folder.best().cloned()));
        Ok(Summary { step, stopped, skipped, model, averages, best, last_step, validation, seconds, profile })
    }

    /// Makes a step; none if the run is to stop before the step is whole.
    fn step(&mut self) -> Result<Option<StepRecord>> {
        let made = self.trainer.step(&mut self.batches, self.ranks, self.job.stop)?;
        let Some(record) = made else { return Ok(None) };
        self.journal(&Record::Step(record.clone()))?;
        self.tell(Event::Step { record: &record, skipped: self.trainer.state.skipped });
        let state = &self.trainer.state;
        if state.skipped_in_a_row >= HOPELESS {
            return Err(Error::Diverged { step: state.step, in_a_row: state.skipped_in_a_row });
        }
        Ok(Some(record))
    }

    /// Saves and validates where the recipe asks for it, and returns whether the run goes on. It saves first,
    /// because a validation takes long and a stop must not wait for its end.
    fn after_step(&mut self) -> Result<bool> {
        let stopped = self.is_told_to_stop();
        let step = self.trainer.state.step;
        if stopped || self.saves_after(step) {
            self.save()?;
        }
        if self.validates_after(step) && (stopped || !self.validate()?) {
            if self.saved != step {
                self.save()?;
            }
            return Ok(false); // not settled: the resumed run validates
        }
        if self.saved == step {
            self.settle()?;
        }
        Ok(!stopped)
    }

    /// Does what the process that saved the newest checkpoint left undone, and returns whether the run goes
    /// on.
    fn catch_up(&mut self) -> Result<bool> {
        let step = self.trainer.state.step;
        let settled = match &self.folder {
            Some(folder) => step == 0 || folder.is_settled(step)?,
            None => false,
        };
        if together::of_first(self.ranks, settled) {
            return Ok(true);
        }
        self.validation = self.folder.as_ref().map_or(Ok(None), |folder| folder.validation(step))?;
        let validated = together::of_first(self.ranks, self.validation.is_some());
        if !validated && self.validates_after(step) && !self.validate()? {
            return Ok(false);
        }
        self.settle().map(|()| true)
    }

    /// Saves the last whole step if that is not done. The run does not go on.
    fn leave(&mut self) -> Result<bool> {
        if self.saved != self.trainer.state.step {
            self.save()?;
            self.settle()?;
        }
        Ok(false)
    }

    /// Measures the validation split; false if the run is to stop before that is done.
    fn validate(&mut self) -> Result<bool> {
        let Some(valid) = &self.data.valid else { return Ok(true) };
        let recipe = self.job.recipe;
        let validation = Validation {
            exits: &recipe.validation_exits(),
            max_tokens: recipe.validation.max_tokens,
            stream: valid,
            tokenizer: &self.data.tokenizer,
        };
        let found = self.trainer.validate(validation, self.ranks, self.job.stop)?;
        let Some(record) = found else { return Ok(false) };
        self.journal(&Record::Validation(record.clone()))?;
        self.tell(Event::Validation { record: &record });
        self.validation = Some(record);
        Ok(true)
    }

    fn save(&mut self) -> Result<()> {
        let step = self.trainer.state.step;
        if together::any(self.ranks, !self.trainer.is_finite()) {
            // Such a checkpoint cannot be read, and would push out one that can.
            return Err(Error::Diverged { step, in_a_row: self.trainer.state.skipped_in_a_row });
        }
        self.saved = step;
        match &mut self.folder {
            Some(folder) => {
                let path = folder.save(&self.trainer, self.data, self.ranks)?;
                self.tell(Event::Checkpoint { step, path: &path });
            }
            None => self.trainer.give_moments(self.ranks), // to the first, which writes them
        }
        Ok(())
    }

    /// Decides whether the checkpoint of this step is the best, and then removes old ones.
    fn settle(&mut self) -> Result<()> {
        let step = self.trainer.state.step;
        // A checkpoint that a stop made is never the best: an uninterrupted run does not have it.
        let planned = self.saves_after(step);
        let validation = self.validation.as_ref().filter(|record| record.step == step && planned);
        let Some(folder) = &mut self.folder else { return Ok(()) };
        if let Some(full) = validation.and_then(|record| record.exits.last()) {
            folder.judge(step, full.loss)?;
        }
        folder.journal_checkpoint(step)?;
        folder.prune(self.job.recipe.checkpoint.keep)
    }

    /// Whether the recipe saves after this step.
    fn saves_after(&self, step: u64) -> bool {
        step == self.job.recipe.training.steps || is_due(step, self.job.recipe.checkpoint.every)
    }

    /// Whether the recipe validates after this step.
    fn validates_after(&self, step: u64) -> bool {
        step == self.job.recipe.training.steps || is_due(step, self.job.recipe.validation.every)
    }
}

/// Whether something that happens every `every` steps happens after this one; 0 is never.
fn is_due(step: u64, every: u64) -> bool {
    every > 0 && step.is_multiple_of(every)
}
