//! Text in, token ids out, and the way back.
//!
//! Read the files in the order in which a story passes through them:
//!
//! 1. [`tokenizer`](Tokenizer): strings ↔ token ids. The vocabulary is GPT-2's, that of any `tokenizer.json`,
//!    or one trained here. [`StreamDecoder`] turns ids back into text and never shows half a character.
//! 2. [`Corpus`]: reads stories out of `.txt`, `.jsonl`, `.json`, `.csv` and `.parquet` files, one at a time.
//! 3. [`prepare`]: writes a corpus as token shards and a `corpus.json`, in bounded memory.
//! 4. [`TokenStream`]: one split of a prepared corpus, with random access. It holds the tokens of all
//!    stories, with one end-of-text token between two stories and none at either end.
//! 5. [`Batches`] for training and [`Windows`] for evaluation: the two ways in which other crates read the
//!    stream.
//!
//! No file is trusted. A length written in a file is compared with the file's own length before it is used. A
//! fault becomes an [`Error`] that names the file and says what to do.

mod batches;
mod corpus;
mod error;
mod fingerprint;
mod frequency;
mod prepare;
mod shard;
mod stream;
mod tokenizer;
mod windows;

pub use batches::Batches;
pub use corpus::{Corpus, CorpusCounts, CorpusFormat, CorpusOptions, SEPARATOR, Stories};
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
pub use frequency::most_used;
pub use prepare::{
    Crew, CrewError, PrepareOptions, PrepareProgress, PrepareSummary, SHARD_TOKENS, SplitSummary, Stage,
    TokenizerChoice, prepare, prepare_together,
};
pub use stream::TokenStream;
pub use tokenizer::{PromptOptions, StreamDecoder, Tokenizer};
pub use windows::{Window, Windows};
