//! Everything that can go wrong in this room, each in one line that says what to do about it.

use std::io;
use std::path::{Path, PathBuf};

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in a file, an option, or the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}: check that it exists and may be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file or folder could not be written: no space, no permission.
    #[error("cannot write {path}: {source}: {advice}", path = path.display(), advice = write_advice(source))]
    Write {
        /// The file that was to appear.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A corpus whose extension is none of those that can be read.
    #[error(
        "{path}: cannot tell what kind of corpus this is: name it .txt (stories separated by lines that are \
         exactly <|endoftext|>), .jsonl (one JSON object with a \"text\" string per line) or .parquet (a string \
         column \"text\")",
        path = path.display()
    )]
    UnknownCorpus {
        /// The file.
        path: PathBuf,
    },
    /// Bytes that are not UTF-8.
    #[error(
        "{path}: byte {offset} is not valid UTF-8: convert the file to UTF-8 (for instance with iconv)",
        path = path.display()
    )]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Position of the first wrong byte, counted from 0.
        offset: u64,
    },
    /// A line of a `.jsonl` corpus that holds no story.
    #[error(
        "{path}, line {line}: {reason}: every line must be a JSON object with a string under \"text\"",
        path = path.display()
    )]
    Jsonl {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What the parser found.
        reason: String,
    },
    /// A parquet file that is damaged, or not of the one shape this room reads.
    #[error("{path}: {reason}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A single story longer than [`crate::MAX_STORY_BYTES`].
    #[error(
        "{path}: the story at {place} is longer than {limit} bytes: separate the stories (in .txt, by lines that \
         are exactly <|endoftext|>)",
        path = path.display()
    )]
    StoryTooLong {
        /// The file.
        path: PathBuf,
        /// Byte, line or row, in words.
        place: String,
        /// The most a story may have.
        limit: usize,
    },
    /// A corpus in which there is nothing to learn from.
    #[error(
        "{path} holds no stories: give a corpus with at least one story that is not empty",
        path = path.display()
    )]
    NoStories {
        /// The file.
        path: PathBuf,
    },
    /// A `tokenizer.json` that cannot be loaded.
    #[error(
        "{path}: not a tokenizer.json that can be loaded: {reason}: give one that Hugging Face's tokenizers wrote",
        path = path.display()
    )]
    TokenizerFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer failed on a text or on its own construction.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What failed.
        reason: String,
    },
    /// A text that would need hundreds of times its size in memory to encode.
    #[error(
        "{what} of {len} bytes is more than this tokenizer takes at once ({limit}): divide it, if it is text"
    )]
    TextTooLong {
        /// What is too long.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
        /// The most it may have.
        limit: usize,
    },
    /// A story of a corpus that cannot be encoded.
    #[error("{path}, story {story}: {source}", path = path.display())]
    Story {
        /// The corpus.
        path: PathBuf,
        /// Counted from 1.
        story: u64,
        /// Why not.
        source: Box<Error>,
    },
    /// A vocabulary too small for byte-level BPE.
    #[error(
        "a vocabulary of {found} is too small: byte-level BPE needs the 256 bytes and <|endoftext|>, so at least 257"
    )]
    VocabularyTooSmall {
        /// The size asked for.
        found: usize,
    },
    /// The tokenizer has no token to put between stories.
    #[error("the tokenizer has no end-of-text token: its special tokens must hold one of {expected}")]
    NoEndOfText {
        /// The names that are recognised.
        expected: String,
    },
    /// A token id that stands for nothing.
    #[error(
        "token id {id} is not in the tokenizer's vocabulary of {vocab_size}: use the tokenizer that the ids came \
         from"
    )]
    UnknownToken {
        /// The id.
        id: u32,
        /// Ids run from 0 to this, exclusive.
        vocab_size: usize,
    },
    /// A token id beyond the vocabulary, in a shard or a stream made in memory.
    #[error(
        "{origin}: token id {id} at position {position} is beyond the vocabulary of {vocab_size}: prepare the \
         corpus again"
    )]
    TokenBeyondVocabulary {
        /// The file, or `tokens in memory`.
        origin: String,
        /// The id found.
        id: u32,
        /// Where, in tokens from the start of the file.
        position: u64,
        /// Ids run from 0 to this, exclusive.
        vocab_size: usize,
    },
    /// A token shard that is damaged, truncated, or not a shard.
    #[error("{path}: {reason}: prepare the corpus again", path = path.display())]
    Shard {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A `corpus.json` that is damaged or speaks of something else.
    #[error("{path}: {reason}: prepare the corpus again", path = path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A prepared folder without the split asked for.
    #[error("{path} has no split \"{split}\" (it has {found}): prepare the corpus with one", path = path.display())]
    NoSplit {
        /// The folder.
        path: PathBuf,
        /// The split asked for.
        split: String,
        /// Those there are.
        found: String,
    },
    /// A read past the end of a token stream.
    #[error("tokens {start}..{end} were asked of a stream of {len}", end = start.saturating_add(*count))]
    OutOfRange {
        /// First token.
        start: u64,
        /// How many.
        count: u64,
        /// The stream's length.
        len: u64,
    },
    /// A stream too short for even one window.
    #[error(
        "the token stream has {len} tokens, fewer than the {needed} one window needs: give a longer corpus or a \
         shorter context"
    )]
    TooShort {
        /// The stream's length.
        len: u64,
        /// One window and its last label.
        needed: u64,
    },
    /// An option that cannot mean anything.
    #[error("{option} = {found}: {expected}")]
    Option {
        /// Its name.
        option: &'static str,
        /// What was given.
        found: String,
        /// What it must be.
        expected: &'static str,
    },
}

impl Error {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Error::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Error::Write { path: path.to_owned(), source }
    }

    pub(crate) fn tokenizer(reason: impl std::fmt::Display) -> Self {
        Error::Tokenizer { reason: one_line(&reason.to_string()) }
    }
}

/// Other crates' messages may run over several lines, and hold whatever a file holds; ours never do.
pub(crate) fn one_line(message: &str) -> String {
    const BEGINNING: usize = 200;
    const END: usize = 100;
    let words: Vec<char> = message.split_whitespace().collect::<Vec<_>>().join(" ").chars().collect();
    let escape = |part: &[char]| -> String {
        let escaped = |char: &char| {
            if char.is_control() { char.escape_default().to_string() } else { char.to_string() }
        };
        part.iter().map(escaped).collect()
    };
    match words.len() > BEGINNING + END {
        true => format!("{}…{}", escape(&words[..BEGINNING]), escape(&words[words.len() - END..])),
        false => escape(&words),
    }
}

fn write_advice(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space or choose a folder on another disk"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "choose a folder that may be written"
        }
        _ => "check the folder, or choose another",
    }
}
