//! Reads this repository for the tests of its rules.

use std::fs;
use std::path::{Path, PathBuf};

/// Paths that are not checked: made by tools, or ignored by git.
const SKIPPED: [&str; 11] = [
    ".git",
    "target",
    "runs",
    "data",
    ".venv",
    "__pycache__",
    ".pytest_cache",
    ".mypy_cache",
    "node_modules",
    "screenshots",
    "artifacts",
];

/// The root folder of the repository.
///
/// # Panics
/// If this package has no parent folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// The text of a file, by its path from the root.
///
/// # Panics
/// If it cannot be read.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The entries of a folder, sorted; folders end in `/`.
///
/// # Panics
/// If it cannot be listed.
pub fn list(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<_> = entries
        .map(|entry| entry.expect("an entry"))
        .map(|entry| {
            (entry.file_name().into_string().expect("UTF-8"), entry.file_type().expect("a type").is_dir())
        })
        .filter(|(name, _)| !SKIPPED.contains(&name.as_str()))
        .map(|(name, is_folder)| if is_folder { name + "/" } else { name })
        .collect();
    names.sort();
    names
}

/// All files below a folder (`""` is the root) whose names end with one of `ends`, as paths from the root.
/// Fixtures are left out, because they are data.
///
/// # Panics
/// If a folder cannot be listed.
pub fn files(folder: &str, ends: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for name in list(folder) {
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        match path.strip_suffix('/') {
            Some(inner) if !inner.ends_with("/fixtures") => found.extend(files(inner, ends)),
            None if ends.iter().any(|end| path.ends_with(end)) => found.push(path),
            _ => (),
        }
    }
    found
}

/// Asserts that a rule found no violation.
///
/// # Panics
/// If it found some, with one line for each.
#[track_caller]
pub fn assert_none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n  {}\n", violations.join("\n  "));
}
