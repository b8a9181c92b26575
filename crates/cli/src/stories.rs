//! The text that a command reads: what `--data` names, or the stories that the program contains.

use crate::output::note;
use anyhow::Result;
use offramp_models::stories;
use offramp_text::{CorpusFormat, CorpusOptions, TokenStream, Tokenizer};
use std::path::{Path, PathBuf};

/// How a command reads the corpus files that it is given.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "reading_arguments")]
pub(crate) struct Reading {
    /// The key or column that holds the stories, in .jsonl, .json, .csv and .parquet
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// The format of the files, whatever their names: txt, jsonl, json, csv or parquet [default: by each
    /// file's name; txt for standard input]
    #[arg(long, value_name = "F")]
    text_format: Option<CorpusFormat>,
}

impl Reading {
    pub(crate) fn options(&self) -> CorpusOptions {
        CorpusOptions { text_column: self.text_column.clone(), format: self.text_format }
    }

    /// Says which format is assumed for standard input.
    pub(crate) fn announce(&self, paths: &[PathBuf]) {
        if self.text_format.is_none() && paths.iter().any(|path| path.as_os_str() == "-") {
            note("reading standard input as plain text; --text-format says otherwise");
        }
    }
}

/// Reads about `max_tokens` at most; without `data`, the stories that the program contains. Prints remarks to
/// stderr.
pub(crate) fn open(
    data: &[PathBuf],
    reading: &Reading,
    tokenizer: &Tokenizer,
    max_tokens: u64,
) -> Result<TokenStream> {
    if data.is_empty() {
        return carried(tokenizer, max_tokens);
    }
    reading.announce(data);
    let stream = offramp_eval::open_data(data, &reading.options(), tokenizer, max_tokens)?;
    for remark in stream.counts().remarks() {
        note(&format!("note: {}: {remark}", name(data)));
    }
    Ok(stream)
}

/// About `max_tokens` of the stories that the program contains.
pub(crate) fn carried(tokenizer: &Tokenizer, max_tokens: u64) -> Result<TokenStream> {
    let stories = stories().map(|story| Ok(story.to_owned()));
    Ok(TokenStream::from_stories(stories, Path::new("stories"), tokenizer, max_tokens)?)
}

/// The name of the data in a result.
pub(crate) fn name(data: &[PathBuf]) -> String {
    match data {
        [] => "stories of offramp's repository".to_owned(),
        paths => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}
