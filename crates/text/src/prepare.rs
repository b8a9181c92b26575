//! Turns a corpus into a folder of token shards.
//!
//! ```text
//! out/tokenizer.json      the tokenizer, wherever it came from
//! out/train-00000.tokens  shards (see shard.rs), as many as needed
//! out/valid-00000.tokens  the same for the validation corpus, if one was given
//! out/corpus.json         the summary; written last, so that a folder with it is complete
//! ```
//!
//! Stories stream through: while all cores encode a few mebibytes, the next ones are read and the last ones
//! are written. All files get temporary names first, and their own names only when the last file is complete.
//! So a failure (a damaged story at the end, a full disk) leaves an earlier corpus in `out` unchanged.
//!
//! Several processes make the same files together: see `crew.rs`.

mod crew;
mod encode;
mod join;
mod output;
mod parts;
mod summary;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use offramp_files::Finished;

use crate::corpus::{self, AllStories, Corpus, CorpusOptions, Part};
use crate::error::{Error, Result};
use crate::shard;
use crate::tokenizer::{BPE_TRAINING_BYTES, Tokenizer};
use encode::SplitJob;
use output::{ShardOutput, Target};

pub use crew::{Crew, CrewError, prepare_together};
pub use summary::{PrepareSummary, SplitSummary};

/// Tokens of a shard where nothing else is asked for: 200 MB of 16-bit ids.
pub const SHARD_TOKENS: u64 = 100_000_000;

/// Where the tokenizer of a corpus comes from.
#[derive(Debug, Clone)]
pub enum TokenizerChoice {
    /// GPT-2's, 50,257 tokens.
    Gpt2,
    /// A `tokenizer.json`.
    File(PathBuf),
    /// One that the caller has read, out of a GGUF file.
    Given(Arc<Tokenizer>),
    /// A byte-level BPE trained on the training corpus (its first 64 MiB).
    Train {
        /// The size of the vocabulary, at least 257.
        vocab_size: usize,
    },
}

impl TokenizerChoice {
    /// The one with this name, `gpt2`, or with this path.
    pub fn named(name: &str) -> Self {
        match name {
            "gpt2" => Self::Gpt2,
            path => Self::File(path.into()),
        }
    }

    /// The word for it in `corpus.json`.
    fn kind(&self) -> &'static str {
        match self {
            TokenizerChoice::Gpt2 => "gpt2",
            TokenizerChoice::File(_) | TokenizerChoice::Given(_) => "file",
            TokenizerChoice::Train { .. } => "trained",
        }
    }
}

/// The options of [`prepare`].
#[derive(Debug, Clone)]
pub struct PrepareOptions {
    /// The training corpus, as [`Corpus::find`] takes it. Its files are read in this order.
    pub train: Vec<PathBuf>,
    /// The validation corpus, likewise; may be empty.
    pub valid: Vec<PathBuf>,
    /// How both are read.
    pub reading: CorpusOptions,
    /// The folder to write. It is created if it does not exist.
    pub out: PathBuf,
    /// The tokenizer.
    pub tokenizer: TokenizerChoice,
    /// A shard is closed after the story that brings it to this many tokens.
    pub shard_tokens: u64,
}

impl PrepareOptions {
    /// Whether some of the stories come from standard input or a pipe, which one process only can read.
    pub fn read_a_stream(&self) -> bool {
        self.train.iter().chain(&self.valid).any(|path| corpus::is_stream(path))
    }
}

/// The stage of [`prepare`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Training the tokenizer.
    TrainTokenizer,
    /// Encoding the training corpus.
    EncodeTrain,
    /// Encoding the validation corpus.
    EncodeValid,
    /// Joining what other processes have encoded; bytes are those of their parts.
    Join,
}

/// How far a stage has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PrepareProgress {
    /// The stage.
    pub stage: Stage,
    /// Bytes of the corpus files read in this stage.
    pub bytes_read: u64,
    /// The bytes to read in this stage, as far as they are known. A stream counts 0.
    pub bytes_total: u64,
    /// Tokens made in this stage.
    pub tokens: u64,
    /// The processes that share this stage. Where there are several, the other numbers are of this one.
    pub processes: usize,
}

/// Writes a prepared corpus; see the head of this file. `progress` is called a few times per second of work.
///
/// # Errors
/// Faults of the options ([`Error::Option`] if no training file is named), of the files ([`Error::NoStories`]
/// if one is empty), of the tokenizer ([`Error::NoEndOfText`] if it has no token to separate stories) or of
/// the disk ([`Error::Write`]).
pub fn prepare(
    options: &PrepareOptions,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<PrepareSummary> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    prepare_alone(options, threads, progress)
}

fn prepare_alone(
    options: &PrepareOptions,
    threads: usize,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<PrepareSummary> {
    let corpora = Corpora::find(options)?;
    let tokenizer = begin(options, &corpora, progress)?;
    let mut shards = Vec::new();
    let mut split = |&(name, stage, corpora): &Split<'_>| {
        let (tokenizer, part) = (&*tokenizer, Part::ALL);
        let target = Target::of(options, &options.out, name);
        let mut output = ShardOutput::new(target, tokenizer, corpora)?;
        let read = SplitJob { corpora, part, tokenizer, stage, threads }.run(&mut output, progress)?;
        let (summary, mut files) = output.finish(read.counts)?;
        shards.append(&mut files);
        Ok(summary)
    };
    let splits: Vec<_> = corpora.splits().iter().map(&mut split).collect::<Result<_>>()?;
    let summary = PrepareSummary::of(options.tokenizer.kind(), &tokenizer, splits);
    publish(&options.out, &tokenizer, shards, &summary)?;
    Ok(summary)
}

/// The files of both splits.
struct Corpora {
    train: Vec<Corpus>,
    valid: Vec<Corpus>,
}

/// A split's name, stage and files.
type Split<'c> = (&'static str, Stage, &'c [Corpus]);

impl Corpora {
    fn find(options: &PrepareOptions) -> Result<Self> {
        if options.shard_tokens == 0 {
            let expected = "must be at least 1";
            return Err(Error::Option { option: "shard_tokens", found: "0".into(), expected });
        }
        if options.train.is_empty() {
            let expected = "must name at least one file of stories";
            return Err(Error::Option { option: "train", found: "[]".into(), expected });
        }
        let find = |paths: &[PathBuf]| Corpus::find(paths, &options.reading);
        Ok(Self { train: find(&options.train)?, valid: find(&options.valid)? })
    }

    fn splits(&self) -> Vec<Split<'_>> {
        let valid = Some(("valid", Stage::EncodeValid, &self.valid[..])).filter(|_| !self.valid.is_empty());
        std::iter::once(("train", Stage::EncodeTrain, &self.train[..])).chain(valid).collect()
    }
}

/// Checks what can be checked before the long work, makes the folder, and finds or trains the tokenizer.
fn begin(
    options: &PrepareOptions,
    corpora: &Corpora,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<Arc<Tokenizer>> {
    // Checks the beginning of every file now. A later file that cannot be read should not fail only after
    // hours.
    corpora.train.iter().chain(&corpora.valid).try_for_each(Corpus::check)?;
    fs::create_dir_all(&options.out).map_err(|e| Error::write(&options.out, e))?;
    offramp_files::remove_leftovers(&options.out);
    choose_tokenizer(options, &corpora.train, progress)
}

fn choose_tokenizer(
    options: &PrepareOptions,
    train: &[Corpus],
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<Arc<Tokenizer>> {
    let tokenizer = match &options.tokenizer {
        TokenizerChoice::Gpt2 => Tokenizer::gpt2(),
        TokenizerChoice::File(path) => Tokenizer::from_file(path),
        TokenizerChoice::Given(tokenizer) => return Ok(Arc::clone(tokenizer)),
        TokenizerChoice::Train { vocab_size } => {
            // The streams are read again when they are encoded.
            train.iter().try_for_each(Corpus::keep)?;
            let bytes_total = train.iter().map(Corpus::bytes).sum::<u64>().min(BPE_TRAINING_BYTES as u64);
            let mut stories = AllStories::new(train);
            let mut reported = 0;
            let observed = std::iter::from_fn(|| {
                let story = stories.next();
                let bytes_read = stories.bytes_read().min(bytes_total);
                if story.is_none() || bytes_read >= reported + encode::CHUNK_BYTES as u64 {
                    reported = bytes_read;
                    progress(PrepareProgress {
                        stage: Stage::TrainTokenizer,
                        bytes_read,
                        bytes_total,
                        tokens: 0,
                        processes: 1,
                    });
                }
                Some(story?.map(|story| story.text))
            });
            Tokenizer::train_bpe(observed, *vocab_size)
        }
    };
    tokenizer.map(Arc::new)
}

/// Gives all files their names. The folder counts as unprepared between the removal of the old `corpus.json`
/// and the writing of the new one.
fn publish(out: &Path, tokenizer: &Tokenizer, shards: Vec<Finished>, summary: &PrepareSummary) -> Result<()> {
    let manifest = PrepareSummary::file_in(out);
    match fs::remove_file(&manifest) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::write(&manifest, e)),
        _ => {}
    }
    tokenizer.save_in(out)?;
    for shard in shards {
        let target = shard.target().to_owned();
        shard.publish().map_err(|e| Error::write(&target, e))?;
    }
    summary.write(out)?;
    remove_stale_shards(out, summary);
    Ok(())
}

/// Removes shards of an earlier, longer corpus. Failures are ignored: `corpus.json` does not name these
/// shards.
fn remove_stale_shards(out: &Path, summary: &PrepareSummary) {
    let Ok(entries) = fs::read_dir(out) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let ours = ["train", "valid"].iter().any(|split| {
            let number =
                name.strip_prefix(split).and_then(|n| n.strip_prefix('-')?.strip_suffix(shard::EXTENSION));
            number.is_some_and(|n| n.len() >= 5 && n.bytes().all(|b| b.is_ascii_digit()))
        });
        if ours && !summary.lists(name) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests;
