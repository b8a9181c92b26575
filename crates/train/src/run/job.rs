//! What a run is told to do, what it reports, and how it ends.

use super::state::Best;
use crate::profile::Profile;
use crate::recipe::Recipe;
use offramp_model::journal::{StepRecord, ValidationRecord};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What [`run`](crate::run()) is to do.
#[derive(Debug)]
pub struct Job<'a> {
    /// The recipe. Its `[data]` section is not used: the corpus is prepared already.
    pub recipe: &'a Recipe,
    /// The folder of the prepared corpus.
    pub corpus: PathBuf,
    /// The run folder.
    pub folder: PathBuf,
    /// Whether to go on with the run that is there.
    pub resume: bool,
    /// Whether the finished model is the checkpoint with the lowest validation loss, and not the last.
    pub best: bool,
    /// Once it is true, the run saves its last whole step and returns: between two micro-batches, or between
    /// two batches of a validation. A resumed run makes up for what was left undone.
    pub stop: &'a AtomicBool,
}

/// What a run reports while it goes.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Everything is read and allocated; the first step comes next.
    Started {
        /// Steps already made: 0 unless the run resumes.
        step: u64,
        /// Steps of the whole run.
        steps: u64,
        /// Values that the model learns.
        parameters: u64,
        /// Tokens of one step.
        tokens_per_step: u64,
        /// Tokens of the training split.
        train_tokens: u64,
        /// Tokens of the validation split, 0 if there is none.
        valid_tokens: u64,
    },
    /// The run goes on for more steps than it was begun for, so its learning rate changes.
    Longer {
        /// Steps of the whole run before.
        before: u64,
        /// Steps of the whole run now.
        steps: u64,
        /// The learning rate of the next step, before and now.
        learning_rates: [f64; 2],
    },
    /// The run begins from a GGUF file whose values were rounded: from the values of its codes.
    Rounded {
        /// The file.
        path: &'a Path,
        /// The formats of its codes.
        formats: &'a [String],
    },
    /// A step was made.
    Step {
        /// As the journal has it.
        record: &'a StepRecord,
        /// Steps so far, this one included, that changed nothing because their gradient was not finite.
        skipped: u64,
    },
    /// The validation split was measured.
    Validation {
        /// As the journal has it.
        record: &'a ValidationRecord,
    },
    /// A checkpoint is on disk.
    Checkpoint {
        /// Steps made before.
        step: u64,
        /// Its folder.
        path: &'a Path,
    },
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Steps made in all.
    pub step: u64,
    /// Whether it was stopped before its model was finished.
    pub stopped: bool,
    /// Steps that changed nothing because their gradient was not finite.
    pub skipped: u64,
    /// The finished model's folder; the newest checkpoint's if the run was stopped, which before the first
    /// step is not there.
    pub model: PathBuf,
    /// The folders of the averages of its weights, once it is finished.
    pub averages: Vec<PathBuf>,
    /// The checkpoint with the lowest validation loss, if one was validated.
    pub best: Option<Best>,
    /// The last step made by this process.
    pub last_step: Option<StepRecord>,
    /// The last validation, of this process or of the one before if it had not yet decided which checkpoint
    /// is the best.
    pub validation: Option<ValidationRecord>,
    /// Seconds of this process.
    pub seconds: f64,
    /// Where the time of its steps went.
    pub profile: Profile,
}
