//! The text that a command looks at: what `--data` names, or the stories that the program carries.

use crate::output::note;
use anyhow::Result;
use offramp_models::stories;
use offramp_text::{CorpusFormat, CorpusOptions, TokenStream, Tokenizer};
use std::path::{Path, PathBuf};

/// How the files of every corpus that a command names are read.
#[derive(Clone, Debug, clap::Args)]
#[group(id = "reading_arguments")]
pub(crate) struct Reading {
    /// The key or column that holds the stories, in .jsonl, .json, .csv and .parquet
    #[arg(long, value_name = "NAME", default_value = "text")]
    text_column: String,
    /// How stories lie in the files, whatever their names: txt, jsonl, json, csv or parquet [default: as each file's name
    /// says; txt for standard input]
    #[arg(long, value_name = "F")]
    text_format: Option<CorpusFormat>,
}

impl Reading {
    pub(crate) fn options(&self) -> CorpusOptions {
        CorpusOptions { text_column: self.text_column.clone(), format: self.text_format }
    }

    /// Says what is taken for granted of standard input.
    pub(crate) fn announce(&self, paths: &[PathBuf]) {
        if self.text_format.is_none() && paths.iter().any(|path| path.as_os_str() == "-") {
            note("reading standard input as plain text; --text-format says otherwise");
        }
    }
}

/// About `max_tokens` of it, at most; no `data` means the stories that are carried. Says on stderr what is to be remarked on.
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
    for remark in stream.found().remarks() {
        note(&format!("note: {}: {remark}", name(data)));
    }
    Ok(stream)
}

/// About `max_tokens` of the stories that the program carries.
pub(crate) fn carried(tokenizer: &Tokenizer, max_tokens: u64) -> Result<TokenStream> {
    let stories = stories().map(|story| Ok(story.to_owned()));
    Ok(TokenStream::from_stories(stories, Path::new("stories"), tokenizer, max_tokens)?)
}

/// What to call it.
pub(crate) fn name(data: &[PathBuf]) -> String {
    match data {
        [] => "stories of offramp's repository".to_owned(),
        paths => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
    }
}
