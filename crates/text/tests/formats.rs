//! Corpora that other programs wrote (`tests/python/make_corpora.py`) hold what Python says they hold.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_text::{Corpus, CorpusCounts, CorpusOptions};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
struct Expected {
    column: String,
    stories: Vec<String>,
    skipped: u64,
    crlf: bool,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/corpora")
}

fn expected() -> BTreeMap<String, Expected> {
    serde_json::from_str(&std::fs::read_to_string(folder().join("expected.json")).unwrap()).unwrap()
}

fn read(path: &Path, column: &str) -> (Vec<String>, CorpusCounts) {
    let options = CorpusOptions { text_column: column.to_owned(), ..Default::default() };
    let mut stories = Corpus::open(path, &options).unwrap().stories().unwrap();
    let texts = stories.by_ref().map(|story| story.unwrap_or_else(|e| panic!("{e}"))).collect();
    (texts, stories.counts())
}

#[test]
fn every_file_holds_the_stories_that_went_in() {
    let expected = expected();
    assert!(expected.len() >= 30, "the fixtures are there");
    for (name, wanted) in &expected {
        let (stories, found) = read(&folder().join(name), &wanted.column);
        assert_eq!(stories, wanted.stories, "{name}");
        let counted = (found.stories, found.skipped, found.crlf > 0);
        assert_eq!(counted, (stories.len() as u64, wanted.skipped, wanted.crlf), "{name}");
        let lines: usize = stories.iter().map(|story| story.split('\n').count()).sum();
        assert_eq!(found.lines, lines as u64, "{name}");
    }
}

/// Every file, cut short at every length, gives an answer and never a wrong story.
#[test]
fn files_that_are_cut_short_give_no_other_stories() {
    let place = tempfile::tempdir().unwrap();
    for (name, wanted) in expected() {
        let whole = std::fs::read(folder().join(&name)).unwrap();
        let path = place.path().join(&name);
        for length in (0..whole.len()).step_by(whole.len() / 97 + 1) {
            std::fs::write(&path, &whole[..length]).unwrap();
            let options = CorpusOptions { text_column: wanted.column.clone(), ..Default::default() };
            let Ok(stories) = Corpus::open(&path, &options).unwrap().stories() else { continue };
            for (index, story) in stories.enumerate() {
                match story {
                    // A plain text that is cut short looks complete.
                    Ok(story) if name.contains(".txt") => {
                        let last = wanted
                            .stories
                            .get(index)
                            .is_some_and(|whole| whole.starts_with(story.trim_end()));
                        assert!(last || story.contains('<'), "{name} at {length}: {story:?}");
                    }
                    Ok(story) if name.contains(".csv") => {
                        assert!(wanted.stories[index].starts_with(&*story), "{name} at {length}: {story:?}");
                    }
                    Ok(story) => assert_eq!(Some(&story), wanted.stories.get(index), "{name} at {length}"),
                    Err(error) => {
                        let message = error.to_string();
                        assert!(message.contains(&name) && !message.contains('\n'), "{message}");
                    }
                }
            }
        }
    }
}
