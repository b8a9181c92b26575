//! The rules of the house that a compiler does not know. Each rule is a function from text to violations, so
//! that beside the test that holds the repository to it stands one in which it fails.

use offramp_tests::repository::{assert_none, files, read, root};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Crates that every room may use; all others stand in one row of ARCHITECTURE.md's table.
const FREE: [&str; 6] = ["serde", "serde_json", "thiserror", "rand", "tempfile", "proptest"];

/// What only `crates/model/src/run_folder.rs` spells out.
const RUN: [&str; 6] =
    ["recipe.toml", "journal.jsonl", "curves.svg", "optimizer.safetensors", "state.json", "step-"];

/// Where `unsafe_code` may be lifted: files, or folders with everything in them.
const UNSAFE: [&str; 8] = [
    "crates/kernels/src/simd/",
    "crates/kernels/src/x86/",
    "crates/kernels/src/columns.rs",
    "crates/kernels/src/team.rs",
    "crates/model/src/storage/",
    "crates/ranks/src/abi.rs",
    "fuzz/src/memory.rs",
    "tests/tests/allocations.rs",
];

/// Lines of Rust that a file may have, and the files that may have more, each with its reason.
const LONG: usize = 400;
const LONG_FILES: [(&str, &str); 0] = [];

/// This file quotes what it forbids.
const THIS: &str = "tests/tests/house_rules.rs";

fn rust_files() -> Vec<String> {
    files("", &[".rs"]).into_iter().filter(|path| path != THIS).collect()
}

// --- Rooms use only what their row names ------------------------------------------------------------------

/// A row of ARCHITECTURE.md's table, or what a manifest says: the room, and what it uses.
#[derive(Debug)]
struct Room {
    name: String,
    uses: Vec<String>,
    outside: Vec<String>,
}

/// The words in backticks.
fn quoted(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The table that begins with `| room |`: room, rooms it uses, crates of its own.
fn plan(architecture: &str) -> Vec<Room> {
    let rows = architecture.lines().skip_while(|line| !line.starts_with("| room "));
    rows.skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(|row| row.split('|').map(quoted).collect::<Vec<_>>())
        .map(|cells| Room { name: cells[1][0].clone(), uses: cells[2].clone(), outside: cells[3].clone() })
        .collect()
}

/// The packages of `cargo metadata`: dependencies of every kind.
fn manifests(metadata: &Value) -> Vec<Room> {
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let room = |package: &Value| {
        let dependencies = package["dependencies"].as_array().expect("dependencies");
        let (ours, outside): (Vec<_>, Vec<_>) = dependencies
            .iter()
            .map(|dependency| text(&dependency["name"]))
            .partition(|name| name.starts_with("offramp-"));
        let short = |name: &String| name.trim_start_matches("offramp-").to_owned();
        Room { name: short(&text(&package["name"])), uses: ours.iter().map(short).collect(), outside }
    };
    packages.iter().map(room).filter(|room| room.name != "tests").collect()
}

fn import_violations(plan: &[Room], manifests: &[Room]) -> Vec<String> {
    let mut violations = Vec::new();
    let (mut above, mut owner) = (BTreeSet::new(), BTreeMap::new());
    for room in plan {
        for used in room.uses.iter().filter(|used| !above.contains(used)) {
            violations.push(format!("{} uses {used}, which does not stand above it in the table", room.name));
        }
        for name in &room.outside {
            if let Some(first) = owner.insert(name, &room.name) {
                violations.push(format!("{name} stands in two rows, {first} and {}", room.name));
            }
        }
        above.insert(&room.name);
        if !manifests.iter().any(|manifest| manifest.name == room.name) {
            violations.push(format!("the table has a room {}, the workspace has not", room.name));
        }
    }
    for manifest in manifests {
        let Some(row) = plan.iter().find(|row| row.name == manifest.name) else {
            violations.push(format!("the room {} has no row in ARCHITECTURE.md's table", manifest.name));
            continue;
        };
        let outside: Vec<_> =
            manifest.outside.iter().filter(|name| !FREE.contains(&name.as_str())).cloned().collect();
        for (allowed, found) in [(&row.uses, &manifest.uses), (&row.outside, &outside)] {
            for name in found.iter().filter(|name| !allowed.contains(name)) {
                violations.push(format!("{} depends on {name}, its row does not name it", row.name));
            }
            for name in allowed.iter().filter(|name| !found.contains(name)) {
                violations.push(format!("{}'s row names {name}, its manifest does not", row.name));
            }
        }
    }
    violations
}

/// The rooms of a workspace.
fn rooms_of(manifest: &str) -> Vec<Room> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path", manifest])
        .current_dir(root())
        .output()
        .expect("what cargo says");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    manifests(&serde_json::from_slice(&output.stdout).expect("what cargo says"))
}

#[test]
fn rooms_use_only_what_their_row_in_architecture_names() {
    // The Python package is a workspace of its own.
    let manifests: Vec<Room> =
        ["Cargo.toml", "crates/python/Cargo.toml"].into_iter().flat_map(rooms_of).collect();
    assert!(manifests.len() >= 8, "the workspace has its rooms");
    assert_none(import_violations(&plan(&read("ARCHITECTURE.md")), &manifests));
}

#[test]
fn an_import_upward_or_a_stray_crate_is_found() {
    const TABLE: &str =
        "| room | uses | crates |\n|---|---|---|\n| `low` | nothing | `gemm` |\n| `high` | `low` | - |\n";
    let package = |name: &str, dependencies: &[&str]| {
        let dependencies: Vec<_> =
            dependencies.iter().map(|name| serde_json::json!({ "name": name, "kind": "dev" })).collect();
        serde_json::json!({ "name": format!("offramp-{name}"), "dependencies": dependencies })
    };
    let check = |low: &[&str], high: &[&str]| {
        let metadata = serde_json::json!({ "packages": [package("low", low), package("high", high)] });
        import_violations(&plan(TABLE), &manifests(&metadata))
    };
    assert_none(check(&["gemm", "serde"], &["offramp-low"]));
    assert_eq!(check(&["gemm", "offramp-high"], &["offramp-low"]).len(), 1, "upward");
    assert_eq!(check(&["gemm"], &["offramp-low", "gemm"]).len(), 1, "another room's crate");
    assert_eq!(check(&["gemm", "axum"], &["offramp-low"]).len(), 1, "a crate of no room");
    assert_eq!(check(&[], &["offramp-low"]).len(), 1, "a row that promises too much");
    let twice = plan(&TABLE.replace("| `low` | - |", "| `low` | `gemm` |"));
    assert!(import_violations(&twice, &[]).iter().any(|line| line.contains("two rows")));
    let cycle = plan(&TABLE.replace("nothing", "`high`"));
    assert!(import_violations(&cycle, &[]).iter().any(|line| line.contains("above")));
}

// --- Rules over one file ----------------------------------------------------------------------------------

/// Names that say nothing about what is inside.
fn is_vague(path: &str) -> bool {
    let mut names = path.split('/').map(|name| name.split('.').next().unwrap_or(name));
    names.any(|name| ["util", "utils", "common", "helper", "helpers", "misc"].contains(&name))
}

fn lifts_unsafe_elsewhere(path: &str, text: &str) -> bool {
    text.contains("(unsafe_code") && !UNSAFE.iter().any(|allowed| path.starts_with(allowed))
}

fn opens_without_a_word(path: &str, text: &str) -> bool {
    !path.ends_with("/tests.rs") && !text.starts_with("//!")
}

/// Whether what is no test of a file has one of these words in it.
fn says(text: &str, words: &[&str]) -> bool {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let mut lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    lines.any(|line| words.iter().any(|word| line.contains(word)))
}

/// Whether a file prints by what panics where it cannot: no file does.
fn prints(text: &str) -> bool {
    says(text, &["println!(", "print!(", "dbg!("])
}

/// Whether a file writes to the process's streams: the doors alone do.
fn writes_to_streams(text: &str) -> bool {
    says(text, &["stdout()", "stderr()"])
}

/// Whether no `mod` line names this file of a package's sources; `read` gives what its parent may be.
fn is_orphan(path: &str, read: impl Fn(&str) -> String) -> bool {
    let Some((package, inside)) = path.split_once("/src/") else { return false };
    let (module, name) = inside.trim_end_matches(".rs").rsplit_once('/').unwrap_or(("", inside));
    let name = name.trim_end_matches(".rs");
    let parents = match module {
        "" if ["lib", "main"].contains(&name) => return false,
        "" => vec![format!("{package}/src/lib.rs"), format!("{package}/src/main.rs")],
        _ => vec![format!("{package}/src/{module}.rs")],
    };
    parents.iter().all(|parent| !read(parent).contains(&format!("mod {name};")))
}

/// Files that are too long without a reason, and reasons without a long file.
fn length_violations(lengths: &[(&str, usize)], excused: &[(&str, &str)]) -> Vec<String> {
    let long: Vec<_> = lengths.iter().filter(|(_, lines)| *lines > LONG).collect();
    let is_excused = |path: &str| excused.iter().any(|(excused, _)| *excused == path);
    let unexcused = long.iter().filter(|(path, _)| !is_excused(path));
    let idle = excused.iter().filter(|(path, _)| long.iter().all(|(long, _)| long != path));
    let unexcused = unexcused.map(|(path, lines)| format!("{path} has {lines} lines"));
    unexcused.chain(idle.map(|(path, _)| format!("{path} needs no excuse"))).collect()
}

/// The `max_width` of `rustfmt.toml`: rustfmt wraps code there, and leaves comments as they are.
fn max_width(rustfmt: &str) -> usize {
    let value = rustfmt.lines().find_map(|line| line.strip_prefix("max_width = "));
    value.and_then(|value| value.parse().ok()).expect("max_width in rustfmt.toml")
}

/// Numbers of the lines that are nothing but a comment and go beyond `width` characters. A link, which cannot
/// be divided, may.
fn wide_comments(text: &str, width: usize) -> Vec<usize> {
    let is_wide = |line: &str| {
        let comment = line.trim_start().starts_with("//");
        comment && line.chars().count() > width && !line.contains("://")
    };
    text.lines().enumerate().filter(|(_, line)| is_wide(line)).map(|(index, _)| index + 1).collect()
}

#[test]
fn comments_end_where_code_ends() {
    let width = max_width(&read("rustfmt.toml"));
    let wide: BTreeMap<String, Vec<usize>> = files("", &[".rs"])
        .into_iter()
        .map(|path| (path.clone(), wide_comments(&read(&path), width)))
        .filter(|(_, lines)| !lines.is_empty())
        .collect();
    assert_none(wide.iter().map(|(path, lines)| format!("{path}: comments too wide in {lines:?}")).collect());
    assert_eq!(wide_comments("/// abcdefg\nlet a = \"long enough\";\n    // äbc\n", 10), [1]);
    assert!(wide_comments("// see https://example.org/long", 9).is_empty());
}

#[test]
fn no_file_has_a_vague_name() {
    assert_none(files("", &[""]).into_iter().filter(|path| is_vague(path)).collect());
    assert!(is_vague("crates/text/src/utils.rs") && is_vague("common/mod.rs"));
    assert!(!is_vague("crates/text/src/tokenizer.rs"));
}

#[test]
fn unsafe_code_stands_only_where_it_is_listed() {
    let lifted = |path: &String| lifts_unsafe_elsewhere(path, &read(path));
    assert_none(rust_files().into_iter().filter(lifted).collect());
    // The Python package, a workspace of its own, says it itself.
    let inherits = |path: &String| {
        let manifest = read(path);
        manifest.contains("[lints]\nworkspace = true")
            || path == "crates/python/Cargo.toml" && manifest.contains("unsafe_code = \"deny\"")
    };
    assert_none(files("crates", &["Cargo.toml"]).into_iter().filter(|path| !inherits(path)).collect());
    assert!(read("Cargo.toml").contains("unsafe_code = \"deny\""));
    assert!(lifts_unsafe_elsewhere("crates/text/src/lib.rs", "#![allow(unsafe_code)]"));
    assert!(!lifts_unsafe_elsewhere("crates/kernels/src/x86/avx2.rs", "#![allow(unsafe_code)]"));
}

#[test]
fn only_the_command_prints() {
    let sources =
        rust_files().into_iter().filter(|path| path.starts_with("crates/") && path.contains("/src/"));
    let sources: Vec<_> = sources.filter(|path| !path.ends_with("/tests.rs")).collect();
    assert_none(sources.iter().filter(|path| prints(&read(path))).cloned().collect());
    let rooms = sources.iter().filter(|path| !path.starts_with("crates/cli/"));
    assert_none(rooms.filter(|path| writes_to_streams(&read(path))).cloned().collect());
    assert!(writes_to_streams("fn f() {\n    io::stdout().flush();\n}"));
    assert!(prints("fn f() {\n    eprintln!(\"done\");\n}"));
    assert!(!prints("// println!(\n#[cfg(test)]\nmod tests { fn f() { println!(); } }"));
}

/// What keeps a download half, so that the next goes on from there.
const HALF: [&str; 2] = ["crates/hub/src/blob.rs", "crates/hub/src/cache.rs"];

/// Whether a file that is not a test makes or renames files by itself; `crates/files` alone does, whole or
/// not at all.
fn writes_by_itself(text: &str) -> bool {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let mut lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    let ways = ["fs::write(", "File::create(", "create_new(", ".persist(", "fs::rename("];
    lines.any(|line| ways.iter().any(|way| line.contains(way) && !line.contains("(\"/proc/")))
}

#[test]
fn one_room_writes_files() {
    let is_test = |path: &str| path.contains("/tests/") || path.contains("/tests.rs");
    let rooms = rust_files().into_iter().filter(|path| path.starts_with("crates/") && path.contains("/src/"));
    let others = rooms.filter(|path| !path.starts_with("crates/files/") && !is_test(path));
    let others = others.filter(|path| !HALF.contains(&&**path));
    assert_none(others.filter(|path| writes_by_itself(&read(path))).collect());
    assert!(writes_by_itself("fn f() {\n    std::fs::write(path, bytes);\n}"));
    assert!(!writes_by_itself(
        "// fs::write(\n#[cfg(test)]\nmod tests { fn f() { fs::write(path, bytes); } }"
    ));
}

/// Whether a file that is not a test spells out the name of a file of a run.
fn names_a_run(path: &str, text: &str) -> bool {
    let code = text.split("#[cfg(test)]").next().unwrap_or(text);
    let mut lines = code.lines().map(str::trim_start).filter(|line| !line.starts_with("//"));
    let is_test = path.contains("/tests") || path.ends_with("/run_folder.rs");
    !is_test && lines.any(|line| RUN.iter().any(|name| line.contains(&format!("\"{name}"))))
}

#[test]
fn what_a_run_consists_of_stands_in_one_place() {
    let place = read("crates/model/src/run_folder.rs");
    assert_none(RUN.iter().filter(|name| !place.contains(*name)).map(|name| (*name).to_owned()).collect());
    let sources =
        rust_files().into_iter().filter(|path| path.starts_with("crates/") && path.contains("/src/"));
    assert_none(sources.filter(|path| names_a_run(path, &read(path))).collect());
    assert!(names_a_run("crates/cli/src/a.rs", "fn f() {\n    open(\"journal.jsonl\");\n}"));
    assert!(!names_a_run("crates/cli/src/a.rs", "// \"journal.jsonl\"\n#[cfg(test)]\n\"state.json\""));
}

#[test]
fn every_rust_file_says_why_it_exists() {
    let silent = |path: &String| opens_without_a_word(path, &read(path));
    assert_none(rust_files().into_iter().filter(silent).collect());
    assert!(opens_without_a_word("crates/text/src/lib.rs", "// a note\nmod a;"));
}

#[test]
fn every_source_file_is_a_module() {
    let source = |path: &str| std::fs::read_to_string(root().join(path)).unwrap_or_default();
    assert_none(rust_files().into_iter().filter(|path| is_orphan(path, source)).collect());
    let parent = |path: &str| if path == "a/src/b.rs" { "mod c;".to_owned() } else { String::new() };
    assert!(is_orphan("a/src/b/d.rs", parent) && is_orphan("a/src/c.rs", parent));
    assert!(!is_orphan("a/src/b/c.rs", parent) && !is_orphan("a/src/lib.rs", parent));
}

#[test]
fn long_files_have_a_reason() {
    let all = files("", &[".rs"]);
    let lengths: Vec<_> = all.iter().map(|path| (path.as_str(), read(path).lines().count())).collect();
    assert_none(length_violations(&lengths, &LONG_FILES));
    assert_eq!(length_violations(&[("a.rs", LONG + 1), ("b.rs", LONG)], &[]).len(), 1);
    assert_eq!(length_violations(&[("a.rs", LONG)], &[("a.rs", "was long once")]).len(), 1);
}
