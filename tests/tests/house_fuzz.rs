//! What keeps the readers sound: every fuzzer can be run and is accounted for, and dependencies are checked.

use offramp_tests::repository::{assert_none, list, read};
use std::collections::BTreeSet;

/// What is missing for the targets of a manifest; `seeds` counts a folder's files, `has` says which files
/// there are.
fn missing(
    targets: &[String],
    readme: &str,
    seeds: impl Fn(&str) -> usize,
    has: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for name in targets {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let cells = row.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
        // target, reads, promises, million inputs, CPU seconds, findings
        let counted = cells.is_some_and(|cells| {
            cells.len() == 8
                && cells[4..7].iter().all(|cell| cell.parse::<f64>().is_ok_and(|number| number >= 0.0))
        });
        let whole = [
            (counted, "a row of fuzz/README.md with its numbers"),
            (seeds(name) >= 3, "seeds"),
            (has(&format!("dictionaries/{name}.dict")), "a dictionary"),
            (has(&format!("fuzz_targets/{name}.rs")), "a source"),
        ];
        found
            .extend(whole.iter().filter(|(there, _)| !there).map(|(_, what)| format!("{name} lacks {what}")));
    }
    found
}

/// The binaries of `fuzz/Cargo.toml`.
fn targets(manifest: &str) -> Vec<String> {
    let sections = manifest.split("[[bin]]").skip(1);
    let name = |section: &str| {
        let line = section.lines().find_map(|line| line.strip_prefix("name = "));
        line.expect("a name").trim_matches('"').to_owned()
    };
    sections.map(name).collect()
}

#[test]
fn every_fuzzer_has_seeds_words_and_a_row() {
    let targets = targets(&read("fuzz/Cargo.toml"));
    let files: BTreeSet<String> = ["dictionaries", "fuzz_targets"]
        .iter()
        .flat_map(|folder| {
            list(&format!("fuzz/{folder}")).into_iter().map(move |name| format!("{folder}/{name}"))
        })
        .collect();
    let seeds = |name: &str| list(&format!("fuzz/seeds/{name}")).len();
    assert_none(missing(&targets, &read("fuzz/README.md"), seeds, |file| files.contains(file)));
    assert_eq!(files.len(), 2 * targets.len(), "a source or a dictionary of no target: {files:?}");
    for name in ["config", "safetensors", "index", "shard", "recipe", "tokenizer", "parquet", "corpus"] {
        assert!(targets.iter().any(|target| target == name), "{name} is fuzzed");
    }
    assert!(["chat_template", "stream_decode"].iter().all(|name| targets.contains(&(*name).to_owned())));
}

#[test]
fn a_fuzzer_without_one_of_them_is_found() {
    let names = targets("[[bin]]\nname = \"a\"\n\n[[bin]]\nname = \"b\"\npath = \"x\"\n");
    assert_eq!(names, ["a", "b"]);
    let row = "| `a` | x | y | 1.5 | 20 | 0 |\n| `b` | x | y | many | 20 | 0 |";
    let found = missing(&names, row, |name| if name == "a" { 3 } else { 0 }, |file| file.contains("a."));
    assert_eq!(found.iter().filter(|line| line.starts_with("a ")).count(), 0, "{found:?}");
    assert_eq!(found.len(), 4, "{found:?}");
}

/// The recipe that people run before they publish also looks at what the program stands on.
#[test]
fn the_check_asks_for_licences_and_sources() {
    let justfile = read("justfile");
    let recipe = |name: &str| {
        let lines = justfile.lines().skip_while(|line| !line.starts_with(name)).skip(1);
        lines.take_while(|line| line.starts_with(' ')).collect::<Vec<_>>().join("\n")
    };
    assert!(justfile.lines().any(|line| line.starts_with("check:") && line.contains("deny")));
    assert!(recipe("deny:").contains("cargo deny check licenses bans sources"));
    assert!(recipe("deny:").contains("cargo install --locked cargo-deny"), "it says what to do without");
}
