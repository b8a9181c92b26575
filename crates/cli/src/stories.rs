//! The text that a command looks at: what `--data` names, or the stories that the program carries.

use anyhow::Result;
use offramp_models::stories;
use offramp_text::{TokenStream, Tokenizer};
use std::path::Path;

/// About `max_tokens` of it, at most.
pub(crate) fn open(data: Option<&Path>, tokenizer: &Tokenizer, max_tokens: u64) -> Result<TokenStream> {
    match data {
        Some(path) => Ok(offramp_eval::open_data(path, tokenizer, max_tokens)?),
        None => {
            let stories = stories().map(|story| Ok(story.to_owned()));
            Ok(TokenStream::from_stories(stories, Path::new("stories"), tokenizer, max_tokens)?)
        }
    }
}

/// What to call it.
pub(crate) fn name(data: Option<&Path>) -> String {
    data.map_or_else(|| "stories of offramp's repository".to_owned(), |path| path.display().to_string())
}
