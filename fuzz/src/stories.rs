//! Reading a corpus to its end.

use crate::answer;
use offramp_text::{Corpus, CorpusOptions, SEPARATOR};
use std::path::Path;

/// Stories that are read of a file: a few bytes can stand for billions, in rows that are all alike.
const MOST_STORIES: usize = 10_000;

/// Reads the stories, twice: each time the same, none empty, none with a marker, a fault the last.
///
/// # Panics
/// If not.
pub fn read(path: &Path) {
    let Some(corpus) = answer(Corpus::open(path, &CorpusOptions::default())) else { return };
    let all = || {
        let mut stories = answer(corpus.stories())?;
        let all: Vec<_> = stories.by_ref().take(MOST_STORIES).map(answer).collect();
        stories.counts().remarks();
        Some(all)
    };
    let first = all();
    let stories = first.iter().flatten();
    let failed = stories.clone().position(Option::is_none);
    assert!(failed.is_none_or(|place| place + 1 == stories.clone().count()), "a story after a fault");
    assert!(stories.flatten().all(|story| !story.is_empty() && !story.contains(SEPARATOR)), "no story");
    assert_eq!(all(), first);
}
