//! The errors of this crate. Each is one line that says what to do.

use std::io;
use std::path::{Path, PathBuf};

use offramp_files::one_line;

/// The result of this crate's functions.
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
        /// The file that was to be written.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A corpus whose name does not tell its format.
    #[error(
        "{path}: cannot tell what kind of corpus this is: name it .txt (stories with <|endoftext|> between them), .jsonl \
         (an object with the text per line), .json, .csv or .parquet, or say which with --text-format",
        path = path.display()
    )]
    UnknownCorpus {
        /// The file.
        path: PathBuf,
    },
    /// A file packed in a way that is not unpacked here.
    #[error(
        "{path}: {name} is not read: unpack it first, or pack the text with gzip or zstd instead",
        path = path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is.
        name: String,
    },
    /// A packed file that does not unpack.
    #[error(
        "{path}: cannot be unpacked ({packed}: {reason}): fetch it again, or unpack it yourself and give the result",
        path = path.display()
    )]
    Packed {
        /// The file.
        path: PathBuf,
        /// `gzip` or `zstd`.
        packed: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A stream that was read before, or that is named twice.
    #[error("{path} comes once and is asked for twice: save it to a file first", path = path.display())]
    ComesOnce {
        /// Its name.
        path: PathBuf,
    },
    /// A stream of a format that is read from its end.
    #[error("{path}: parquet cannot be read from a stream: save it to a file first", path = path.display())]
    NeedsFile {
        /// Its name.
        path: PathBuf,
    },
    /// A folder without a corpus file.
    #[error(
        "{path} holds no file named .txt, .jsonl, .json, .csv or .parquet: give the folder that does, or a pattern like \
         '{path}/**/*.parquet'",
        path = path.display()
    )]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A folder whose corpus files are of several formats.
    #[error(
        "{path} holds .{} and .{} files: say which are the corpus with a pattern, like '{path}/*.{}'",
        kinds[0], kinds[1], kinds[0],
        path = path.display()
    )]
    MixedFolder {
        /// The folder.
        path: PathBuf,
        /// Two of its formats.
        kinds: [&'static str; 2],
    },
    /// A prepared corpus where the stories themselves are needed.
    #[error(
        "{path} was prepared already, and holds tokens: give the stories that it was made from",
        path = path.display()
    )]
    PreparedFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A pattern that matches no file.
    #[error("{path}: {reason}: give files that exist", path = path.display())]
    NoMatch {
        /// The pattern.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No record has the text column.
    #[error(
        "{path} has no \"{column}\" (it has {found}): say which holds the stories with --text-column (for a \
         recipe, in `offramp prepare`)",
        path = path.display()
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        column: String,
        /// The columns, or the keys of the first record.
        found: String,
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
    /// Damaged JSON, or a text that is not a string.
    #[error(
        "{path}, line {line}: {reason}: every record must be a JSON object with a string under \"{column}\"",
        path = path.display()
    )]
    Json {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What the parser found.
        reason: String,
        /// The key of the text.
        column: String,
    },
    /// A row of a `.csv` file that cannot be read.
    #[error(
        "{path}, line {line}: {reason}: put fields with commas or line breaks in double quotes, and write UTF-8",
        path = path.display()
    )]
    Csv {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: u64,
        /// What was found.
        reason: String,
    },
    /// A parquet file that is damaged, or of a kind that is not read here.
    #[error("{path}: {reason}", path = path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A single story longer than 64 MiB.
    #[error(
        "{path}: the story at {place} is longer than {limit} bytes: put <|endoftext|> between stories, or divide it",
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
    /// A corpus without stories.
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
    /// A GGUF file without a tokenizer, or with one that is not known here.
    #[error("{path}: {reason}", path = path.display())]
    GgufTokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A model folder without a `tokenizer.json`.
    #[error("{folder}: it has no tokenizer.json: {advice}", folder = folder.display())]
    NoTokenizer {
        /// The folder.
        folder: PathBuf,
        /// What to do.
        advice: String,
    },
    /// The pointer that git-lfs leaves in place of a file that it has not fetched.
    #[error("{path} is a git-lfs pointer, which says where the file is, and not the file: run `git lfs pull` in its folder, or download it again", path = path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
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
    #[error(
        "the tokenizer has no end-of-text token: its special tokens must hold one of {expected}, or the \
         tokenizer_config.json beside it must name its eos_token"
    )]
    NoEndOfText {
        /// The known names.
        expected: String,
    },
    /// A token id that the tokenizer does not have.
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
    /// A `corpus.json` that is damaged or has another format.
    #[error("{path}: {reason}: prepare the corpus again", path = path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        reason: String,
    },
    /// A prepared folder whose `tokenizer.json` is not the one that made its shards.
    #[error(
        "{path} is not the tokenizer that made the token shards beside it: put the right one back, or prepare the corpus \
         again",
        path = path.display()
    )]
    OtherTokenizer {
        /// The tokenizer.
        path: PathBuf,
    },
    /// A prepared folder without the requested split.
    #[error("{path} has no split \"{split}\" (it has {found}): prepare the corpus with one", path = path.display())]
    NoSplit {
        /// The folder.
        path: PathBuf,
        /// The requested split.
        split: String,
        /// The splits that the folder has.
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
    /// Several processes that cannot prepare a corpus together.
    #[error(transparent)]
    Crew(#[from] crate::CrewError),
    /// An option with an invalid value.
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
