//! What the documents and the recipes promise about the repository: places they name exist, the tree is the
//! repository's, keys are commented. Each rule is a function over text, tested to fail too.

use offramp_tests::repository::{assert_none, files, list, read, root};
use std::collections::BTreeSet;

/// This file quotes what it forbids.
const THIS: &str = "tests/tests/house_documents.rs";

// --- Rules over one file ----------------------------------------------------------------------------------

/// Mentions of a place on somebody's machine.
fn machine_paths(text: &str) -> Vec<&'static str> {
    let inside = |before: char| before.is_alphanumeric() || "_-.}/".contains(before);
    let stands_alone = |(at, path): (usize, &str)| {
        !text[..at].ends_with(inside) && !text[at + path.len()..].starts_with(inside_name)
    };
    let mentions = |path: &&str| text.match_indices(*path).any(stands_alone);
    ["/work", "/root", "/tmp", "/home"].into_iter().filter(mentions).collect()
}

fn inside_name(after: char) -> bool {
    after.is_alphanumeric() || "_-.".contains(after)
}

/// Keys of a recipe with no comment, neither on their line nor on the line above.
fn uncommented_keys(recipe: &str) -> Vec<&str> {
    let mut above = "";
    let mut found = Vec::new();
    for line in recipe.lines().map(str::trim) {
        let is_key = line.split_once('=').is_some_and(|(key, _)| key.trim().chars().all(inside_name));
        if is_key && !has_comment(line) && !above.starts_with('#') {
            found.push(line);
        }
        above = line;
    }
    found
}

fn has_comment(line: &str) -> bool {
    let mut quote = None;
    for char in line.chars() {
        match (quote, char) {
            (None, '#') => return true,
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), _) if open == char => quote = None,
            _ => (),
        }
    }
    false
}

/// Files and folders in backticks, from the root. What a user makes (`runs/…`) is not among them.
fn named(markdown: &str) -> Vec<String> {
    let ours = ["crates/", "tests/", "docs/", "recipes/", "stories/"];
    let is_place = |name: &String| {
        ours.iter().any(|folder| name.starts_with(folder)) && name.chars().all(|c| inside_name(c) || c == '/')
    };
    markdown.split('`').skip(1).step_by(2).map(str::to_owned).filter(is_place).collect()
}

/// Links of a Markdown file to places in the repository, from the file's folder.
fn links(markdown: &str) -> Vec<&str> {
    let targets = markdown.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let places = targets.map(|(target, _)| target.split('#').next().unwrap_or(target));
    places.filter(|place| !place.is_empty() && !place.contains("://")).collect()
}

#[test]
fn no_file_names_a_place_on_a_machine() {
    let ends = [".md", ".rs", ".toml", ".py", ".yml", "justfile", "run", ".txt"];
    let all = files("", &ends).into_iter().filter(|path| path != THIS);
    let found = all.map(|path| (machine_paths(&read(&path)), path)).filter(|(found, _)| !found.is_empty());
    assert_none(found.map(|(found, path)| format!("{path}: {found:?}")).collect());
    assert_eq!(machine_paths("see `/tmp/x`, /work and (/root)"), ["/work", "/root", "/tmp"]);
    assert!(machine_paths("runs/work, a/tmp.rs, ../root/x, {out}/tmp and /workshop").is_empty());
}

#[test]
fn every_key_of_a_recipe_is_commented() {
    let recipes = files("recipes", &[".toml"]);
    let found = recipes.iter().flat_map(|path| {
        uncommented_keys(&read(path)).into_iter().map(|key| format!("{path}: {key}")).collect::<Vec<_>>()
    });
    assert_none(found.collect());
    assert_eq!(uncommented_keys("[data]\na = 1 # one\nb = \"#\"\n# two\nc = [\n  2,\n]"), ["b = \"#\""]);
}

#[test]
fn places_that_documents_name_exist() {
    for path in files("", &[".md"]) {
        let folder = root().join(&path).parent().unwrap().to_owned();
        let (text, missing) = (read(&path), |place: &&str| !folder.join(place).exists());
        assert_none(links(&text).into_iter().filter(missing).map(|to| format!("{path}: {to}")).collect());
        let missing = |place: &String| !root().join(place).exists();
        assert_none(named(&text).into_iter().filter(missing).map(|to| format!("{path}: {to}")).collect());
    }
    assert_eq!(named("`tests/a.rs` `cargo test` ```sh\nx\n``` `docs/` `runs/a`"), ["tests/a.rs", "docs/"]);
    assert_eq!(links("[a](b.md#c) [d](https://e) [f](#g)"), ["b.md"]);
}

// --- ARCHITECTURE.md's tree is the repository's -----------------------------------------------------------

/// The paths of the tree: the block after the heading `## The tree`, two spaces a level.
fn tree(architecture: &str) -> Vec<String> {
    let block = architecture.split("## The tree").nth(1).and_then(|rest| rest.split("```").nth(1));
    let mut folders: Vec<String> = Vec::new();
    let mut paths = Vec::new();
    for line in block.unwrap_or_default().lines().skip(1).filter(|line| !line.is_empty()) {
        let name = line.split_whitespace().next().unwrap_or_default();
        folders.truncate((line.len() - line.trim_start().len()) / 2);
        paths.push(folders.concat() + name);
        folders.push(name.to_owned());
    }
    paths
}

/// Paths that are not there, and what is missing in folders of which something is shown. A module's folder
/// (`corpus/` beside `corpus.rs`) may stay closed.
fn tree_violations(tree: &[String], list: impl Fn(&str) -> Vec<String>) -> Vec<String> {
    let folder = |path: &String| {
        path.trim_end_matches('/').rsplit_once('/').map_or(String::new(), |(folder, _)| folder.to_owned())
    };
    let open: BTreeSet<String> = tree.iter().map(folder).collect();
    let mut found = Vec::new();
    for inside in open {
        let entries = list(&inside);
        let path = |name: &String| if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") };
        let there: BTreeSet<String> = entries.iter().map(path).collect();
        let is_module = |entry: &String| there.contains(&(entry.trim_end_matches('/').to_owned() + ".rs"));
        let shown = tree.iter().filter(|path| folder(path) == inside);
        found.extend(shown.filter(|path| !there.contains(*path)).map(|path| format!("there is no {path}")));
        let hidden = there.iter().filter(|entry| !tree.contains(entry) && !is_module(entry));
        let hidden = hidden.filter(|entry| !entry.ends_with("/Cargo.toml")); // every package has one
        found.extend(hidden.map(|entry| format!("ARCHITECTURE.md's tree lacks {entry}")));
    }
    found
}

#[test]
fn the_tree_in_architecture_is_the_repositorys() {
    let tree = tree(&read("ARCHITECTURE.md"));
    assert!(tree.len() > 40, "there is a tree");
    assert_none(tree_violations(&tree, list));
}

#[test]
fn a_file_missing_in_the_tree_is_found() {
    let list = |folder: &str| match folder {
        "" => vec!["README.md".to_owned(), "src/".to_owned()],
        _ => vec!["a.rs".to_owned(), "a/".to_owned(), "b.rs".to_owned()],
    };
    let check = |text: &str| tree_violations(&tree(&format!("## The tree\n```\n{text}```\n")), list);
    assert_none(check("README.md  x\nsrc/\n  a.rs  x\n  b.rs  y\n"));
    assert_eq!(check("README.md  x\nsrc/\n  a.rs  x\n"), ["ARCHITECTURE.md's tree lacks src/b.rs"]);
    assert_eq!(check("README.md  x\nsrc/  x\nold/  x\n"), ["there is no old/"]);
}
