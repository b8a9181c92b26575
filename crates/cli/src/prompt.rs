//! The prompt of a command: an argument, or a file for prompts that are too long for one.

use anyhow::Result;
use offramp_pipeline::{Error, PromptOptions};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The most bytes that are read: more than the tokenizer takes, so that the tokenizer reports a prompt that
/// is too long.
const MOST: u64 = 8 << 20;

#[derive(Clone, Debug, clap::Args)]
#[group(id = "prompt_arguments")]
pub(crate) struct Arguments {
    /// What to continue; "" lets the model begin [default: "Once upon a time"]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// A file with the text to continue; - reads stdin. A line feed at its end is dropped
    #[arg(long, value_name = "PATH", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
    /// Treat the names of special tokens in the prompt, such as <|endoftext|>, as plain text
    #[arg(long)]
    plain_text: bool,
}

impl Arguments {
    pub(crate) fn text(&self) -> Result<String> {
        match (&self.prompt, &self.prompt_file) {
            (Some(prompt), _) => Ok(prompt.clone()),
            (None, Some(path)) => read(path),
            (None, None) => Ok("Once upon a time".to_owned()),
        }
    }

    pub(crate) fn options(&self) -> PromptOptions {
        PromptOptions { plain_text: self.plain_text, ..PromptOptions::default() }
    }
}

fn read(path: &Path) -> Result<String> {
    let (name, mut bytes) = (path.display().to_string(), Vec::new());
    let read = match path == Path::new("-") {
        true => io::stdin().lock().take(MOST).read_to_end(&mut bytes),
        false => File::open(path).and_then(|file| file.take(MOST).read_to_end(&mut bytes)),
    };
    let name = if name == "-" { "stdin".to_owned() } else { name };
    read.map_err(|source| Error::Read { path: PathBuf::from(&name), source })?;
    if bytes.len() as u64 == MOST {
        bytes.truncate(bytes.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len()));
    }
    let mut text = String::from_utf8(bytes).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        anyhow::anyhow!("{name} is no UTF-8 text from byte {place} on: a prompt is text, convert the file")
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
