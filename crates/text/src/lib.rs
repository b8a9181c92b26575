//! Text on one side, token ids on the other, and nothing of what happens to them in between.
//!
//! Reading order, the way a story travels:
//!
//! 1. [`tokenizer`](Tokenizer): strings ↔ token ids. GPT-2's own vocabulary, any `tokenizer.json`, or one
//!    trained here; [`StreamDecoder`] turns ids back into text without ever showing half a character.
//! 2. [`Corpus`]: stories out of `.txt`, `.jsonl`, `.json`, `.csv` and `.parquet` files, one at a time.
//! 3. [`prepare`]: a corpus becomes token shards and a `corpus.json`, in bounded memory.
//! 4. [`TokenStream`]: one split of a prepared corpus, read at random. The stream is the stories' tokens with
//!    one end-of-text token between each two; it neither begins nor ends with one.
//! 5. [`Batches`] (training) and [`Windows`] (evaluation): the two ways the rest of the house looks at it.
//!
//! Every file is taken to be wrong until it has been checked: no length written in one is believed before it
//! is compared with the file's own, and a fault is an [`Error`] that names the file and what to do.

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
pub use corpus::{Corpus, CorpusFormat, CorpusOptions, Found, MAX_STORY_BYTES, SEPARATOR, Stories};
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
pub use frequency::most_used;
pub use prepare::{
    PrepareOptions, PrepareProgress, PrepareSummary, SplitSummary, Stage, TokenizerChoice, prepare,
};
pub use stream::TokenStream;
pub use tokenizer::{BPE_TRAINING_BYTES, Encoder, PromptOptions, StreamDecoder, Tokenizer};
pub use windows::{Window, Windows};
