//! Reading a corpus to its end.

use crate::answer;
use offramp_text::Corpus;
use std::path::Path;

/// Reads every story, twice: each time the same, none empty, a fault the last.
///
/// # Panics
/// If not.
pub fn read(path: &Path) {
    let Some(corpus) = answer(Corpus::open(path)) else { return };
    let all = || {
        let stories = answer(corpus.stories())?;
        Some(stories.map(answer).collect::<Vec<_>>())
    };
    let first = all();
    let stories = first.iter().flatten();
    let failed = stories.clone().position(Option::is_none);
    assert!(failed.is_none_or(|place| place + 1 == stories.clone().count()), "a story after a fault");
    assert!(stories.flatten().all(|story| !story.is_empty()), "an empty story");
    assert_eq!(all(), first);
}
