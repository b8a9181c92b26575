//! Everything that can go wrong in this room, each in one line that says what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// Bytes.
const MEGABYTE: u64 = 1_000_000;

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in a recipe, a run folder, the data, or the run itself.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The processes of a run are not alike.
    #[error("rank {rank} and rank 0 have different {what}: start all of them with the same")]
    RanksDiffer {
        /// The first rank that differs from the first of all.
        rank: usize,
        /// What differs.
        what: &'static str,
    },
    /// The micro-batches of a step cannot be shared among the processes.
    #[error("{path}: training.accumulation is {accumulation}, which {ranks} processes cannot share: start a number of processes that divides it, or set it to a multiple of {ranks}", path = path.display())]
    RanksDoNotDivide {
        /// The recipe.
        path: PathBuf,
        /// Its `training.accumulation`.
        accumulation: usize,
        /// The processes.
        ranks: usize,
    },
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}: check that it exists and may be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file or folder could not be written: no space, no permission.
    #[error("cannot write {path}: {source}: check that there is space and that the folder may be written", path = path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A recipe that is not TOML, or has a key or a type that no recipe has.
    #[error("{path}, line {line}: {reason}", path = path.display())]
    RecipeSyntax {
        /// The recipe.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A key of a recipe whose value is impossible, alone or beside the others.
    #[error("{path}: {key} is {found}: it must be {expected}", path = path.display())]
    Recipe {
        /// The recipe.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// Its value.
        found: String,
        /// What it may be, or what to do.
        expected: String,
    },
    /// Layer dropout without a possible probability.
    #[error("{path}: [layer_dropout] {reason}", path = path.display())]
    LayerDropout {
        /// The recipe.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A run folder in which there is a run already.
    #[error(
        "{path} holds a run already ({state}): resume it (--resume), or choose another folder",
        path = path.display()
    )]
    RunExists {
        /// The run folder.
        path: PathBuf,
        /// How far it has come.
        state: String,
    },
    /// A run folder that another process works in.
    #[error("another process is training in {path}: let it end or stop it, or choose another folder", path = path.display())]
    RunBusy {
        /// The run folder.
        path: PathBuf,
    },
    /// A run folder with nothing to resume.
    #[error("there is no run in {path} to resume: start it without --resume", path = path.display())]
    NoRun {
        /// The run folder.
        path: PathBuf,
    },
    /// Resuming with another recipe than the run was begun with.
    #[error(
        "{key} is {found} in {path}, but this run was begun with {expected}: restore it, or start a new run in \
         another folder",
        path = path.display()
    )]
    ChangedRecipe {
        /// The recipe given now.
        path: PathBuf,
        /// The first key that differs, with its section.
        key: String,
        /// Its value now.
        found: String,
        /// Its value when the run began.
        expected: String,
    },
    /// Resuming for more steps, of which shares say when a stage begins, in the middle of such a stage.
    #[error(
        "training.steps is {steps} in {path}, but this run of {before} steps is in a stage that would begin later then: \
         keep {before}, or begin a new run from its model ([start] checkpoint)",
        path = path.display()
    )]
    StageTakenBack {
        /// The recipe given now.
        path: PathBuf,
        /// Its steps.
        steps: u64,
        /// The steps so far.
        before: u64,
    },
    /// Resuming on another corpus than the run was begun with.
    #[error(
        "the corpus in {path} has {what} {found}, but this run was begun with {expected}: prepare the same corpus \
         again, or start a new run in another folder",
        path = path.display()
    )]
    ChangedCorpus {
        /// The prepared folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// What it is now.
        found: String,
        /// What it was when the run began.
        expected: String,
    },
    /// A checkpoint's `state.json` that cannot be used.
    #[error("{path}: {reason}: {}", instead(*before), path = path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// The step of the checkpoint before it.
        before: Option<u64>,
    },
    /// A checkpoint's `state.json` of another version of this program.
    #[error(
        "{path} was written by another version of offramp (its format is {found}, this one reads {expected}): go on \
         with that version, or begin a new run from its weights ([start] checkpoint)",
        path = path.display()
    )]
    StateVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The one that can be read.
        expected: u32,
    },
    /// A checkpoint that cannot be used.
    #[error(
        "the checkpoint {path} cannot be used: {source}: {}", instead(*before),
        path = path.display()
    )]
    Checkpoint {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<offramp_model::Error>,
        /// The step of the checkpoint before it.
        before: Option<u64>,
    },
    /// A disk that has no room for what is to be written; nothing was.
    #[error(
        "there is no room for {path}: it needs {} MB, and {} MB are free: free some space, then go on with --resume",
        needed.div_ceil(MEGABYTE), free / MEGABYTE, path = path.display()
    )]
    DiskFull {
        /// The folder that was to appear.
        path: PathBuf,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// More memory than there is; none of it was taken.
    #[error(
        "{path}: training needs about {} GB of memory, and {} GB are available: {advice}",
        gigabytes(*needed, u64::div_ceil), gigabytes(*available, |bytes, unit| bytes / unit), path = path.display()
    )]
    NoMemory {
        /// The recipe.
        path: PathBuf,
        /// Bytes that the run needs.
        needed: u64,
        /// Bytes that the process may still take.
        available: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A corpus whose ids mean other words to the model that the run begins from.
    #[error(
        "{path}: the corpus is of another tokenizer than start.checkpoint's, to which its ids mean other words: prepare it \
         with {tokenizer} (offramp prepare --tokenizer, or data.tokenizer)",
        path = path.display(), tokenizer = tokenizer.display()
    )]
    OtherTokenizer {
        /// The recipe.
        path: PathBuf,
        /// The tokenizer of the model that it begins from.
        tokenizer: PathBuf,
    },
    /// A validation split on which nothing can be measured.
    #[error(
        "the validation split of {path} has {tokens} token{}, and a loss needs two: prepare the corpus with more \
         validation stories, or with none",
        if *tokens == 1 { "" } else { "s" }, path = path.display()
    )]
    ShortValidation {
        /// The prepared folder.
        path: PathBuf,
        /// Its tokens.
        tokens: u64,
    },
    /// A run that goes on, whose corpus is nowhere to be found.
    #[error(
        "the corpus is neither at {named} nor near the recipe or the run: set data.corpus in {recipe} to where it lies now",
        named = named.display(), recipe = recipe.display()
    )]
    NoCorpus {
        /// Where the recipe says that it lies.
        named: PathBuf,
        /// The recipe.
        recipe: PathBuf,
    },
    /// A recipe without data.
    #[error("{path} names no data: give data.corpus, or data.train", path = path.display())]
    NoData {
        /// The recipe.
        path: PathBuf,
    },
    /// The best checkpoint was asked for, and there is none.
    #[error(
        "{path} can have no best checkpoint without a validation: prepare the corpus with validation stories, or do \
         without --best",
        path = path.display()
    )]
    NoBest {
        /// The run folder.
        path: PathBuf,
    },
    /// A finished run whose checkpoints are gone.
    #[error(
        "{path} holds a finished model and no checkpoint to resume from: use the model, or start a new run in another \
         folder",
        path = path.display()
    )]
    NoCheckpoint {
        /// The run folder.
        path: PathBuf,
    },
    /// Training that has come to nothing. Resuming would come to it again.
    #[error(
        "{}, up to step {step}: start a new run in another folder with a lower learning_rate, a longer warm-up or a \
         smaller clip",
        diverged(*in_a_row)
    )]
    Diverged {
        /// The last of these steps.
        step: u64,
        /// Steps in a row without a finite loss or gradient; 0 if a weight or a moment is not finite.
        in_a_row: u32,
    },
    /// A fault in a model's files, or the disk.
    #[error(transparent)]
    Model(#[from] offramp_model::Error),
    /// A prepared corpus from which no batch can be made.
    #[error("{path}: {source}", path = path.display())]
    Corpus {
        /// The prepared folder.
        path: PathBuf,
        /// Why not.
        source: offramp_text::Error,
    },
    /// A fault in a corpus or a tokenizer.
    #[error(transparent)]
    Text(#[from] offramp_text::Error),
}

impl Error {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }
}

/// Gigabytes with one decimal, rounded as told.
fn gigabytes(bytes: u64, divide: fn(u64, u64) -> u64) -> String {
    let tenths = divide(bytes, 100 * MEGABYTE);
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// What to do without a checkpoint.
fn instead(before: Option<u64>) -> String {
    match before {
        Some(step) => {
            format!("remove this checkpoint's folder to resume from the one before, step {step}")
        }
        None => "there is no checkpoint before it: start a new run in another folder".to_owned(),
    }
}

fn diverged(in_a_row: u32) -> String {
    match in_a_row {
        0 => "a weight or a moment of its gradient is not finite".to_owned(),
        steps => format!("the loss or its gradient was not finite in {steps} steps in a row"),
    }
}
