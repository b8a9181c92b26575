//! The text to measure on: stories, or a corpus that was prepared already.

use crate::{Error, Result};
use offramp_text::{PrepareSummary, TokenStream, Tokenizer};
use std::path::Path;

/// The tokens that `path` means to a model with this tokenizer: the stories of a file, or the validation split
/// of a prepared folder (the training split if it has no other). Of a file, no more is read than the story that
/// reaches `max_tokens`.
///
/// # Errors
/// If the file or folder cannot be read, or the folder was prepared with another tokenizer.
pub fn open_data(path: &Path, tokenizer: &Tokenizer, max_tokens: u64) -> Result<TokenStream> {
    if !path.is_dir() {
        return Ok(TokenStream::from_corpus(path, tokenizer, max_tokens)?);
    }
    let summary = PrepareSummary::read(path)?;
    if !Tokenizer::from_folder(path)?.has_vocabulary_of(tokenizer) {
        return Err(Error::Tokenizer { path: path.to_owned() });
    }
    Ok(TokenStream::open(path, if summary.valid.is_some() { "valid" } else { "train" })?)
}
