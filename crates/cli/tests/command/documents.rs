//! The binary accepts every command that a document or a recipe shows.

use crate::place::Place;
use std::path::{Path, PathBuf};

/// The arguments of each `offramp …` line of a Markdown file's blocks, or of a recipe's indented comments.
fn shown(text: &str) -> Vec<Vec<&str>> {
    let mut in_block = false;
    let mut found = Vec::new();
    for line in text.lines() {
        in_block ^= line.starts_with("```");
        let Some(line) = line.strip_prefix("#     ").or_else(|| in_block.then_some(line)) else { continue };
        let command = ["offramp ", "cargo run --release -- "].iter().find_map(|name| line.strip_prefix(name));
        found.extend(command.map(words));
    }
    found
}

/// Words; text between quotes is one word.
fn words(command: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (index, part) in command.split('"').enumerate() {
        match index % 2 {
            0 => words.extend(part.split_whitespace()),
            _ => words.push(part),
        }
    }
    words
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut found = vec![root.join("README.md")];
    for folder in ["docs", "recipes"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        let is_picture = |path: &PathBuf| path.extension().is_some_and(|end| end == "png" || end == "svg");
        let paths = entries.map(|entry| entry.unwrap().path());
        found.extend(paths.filter(|path| path.is_file() && !is_picture(path)));
    }
    found
}

#[test]
fn every_command_that_a_document_shows_is_understood() {
    let place = Place::empty();
    let mut count = 0;
    for path in documents() {
        let text = std::fs::read_to_string(&path).unwrap();
        for arguments in shown(&text) {
            // `--help` at the end: everything before it is parsed, nothing is run.
            let ran = place.run(&[&arguments[..], &["--help"]].concat());
            assert_eq!(ran.code, 0, "{}: offramp {arguments:?}: {}", path.display(), ran.stderr);
            count += 1;
        }
    }
    assert!(count >= 10, "documents show commands: {count}");
}

#[test]
fn a_command_with_a_wrong_flag_is_found() {
    let text = "#     offramp bench run --exit 6\nofframp is\n```sh\ncargo run --release -- generate run --prompt \"a b\"\n```";
    assert_eq!(
        shown(text),
        [vec!["bench", "run", "--exit", "6"], vec!["generate", "run", "--prompt", "a b"]]
    );
    assert_eq!(Place::empty().run(&["bench", "run", "--exit", "6", "--help"]).code, 2);
}
