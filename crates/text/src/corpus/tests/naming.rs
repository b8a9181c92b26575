//! The ways to name a corpus, and the remarks on what it holds.

use super::*;

/// However it is named, a corpus is the same files in the same order.
#[test]
fn folders_and_patterns_are_read_in_the_order_of_names() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("tales");
    fs::create_dir_all(folder.join("deeper")).unwrap();
    for name in ["b.txt", "a.txt", "C.txt", "deeper/d.txt", "notes.md", ".hidden.txt"] {
        fs::write(folder.join(name), format!("Story {name}.")).unwrap();
    }
    let names = |paths: &[&Path]| {
        let paths: Vec<PathBuf> = paths.iter().map(|path| path.to_path_buf()).collect();
        let found = Corpus::find(&paths, &CorpusOptions::default());
        let name = |c: &Corpus| c.path().strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        found.map(|found| found.iter().map(name).collect::<Vec<_>>()).map_err(|e| e.to_string())
    };
    assert_eq!(names(&[&folder]).unwrap(), ["C.txt", "a.txt", "b.txt"]);
    assert_eq!(names(&[&folder.join("[ab].txt")]).unwrap(), ["a.txt", "b.txt"]);
    assert_eq!(names(&[&folder.join("**/?.txt"), &folder.join("a.txt")]).unwrap().len(), 5);
    let refused = |path: &Path, expected: &str| {
        let message = names(&[path]).unwrap_err();
        assert!(message.contains(expected) && !message.contains('\n'), "{message}");
    };
    refused(&folder.join("*.parquet"), "no file is named so");
    refused(place.path(), "**/*.parquet");
    // The advice works.
    assert_eq!(names(&[&place.path().join("**/C.txt")]).unwrap(), ["C.txt"]);
    fs::write(folder.join("meta.json"), "{}").unwrap();
    refused(&folder, "/*.txt'");
    assert_eq!(names(&[&folder.join("*.txt")]).unwrap().len(), 4);
    fs::write(folder.join("train-00000.tokens"), "").unwrap();
    refused(&folder, "was prepared already");
    // A file with exactly that name is not a pattern.
    fs::write(folder.join("[ab].txt"), "Itself.").unwrap();
    assert_eq!(names(&[&folder.join("[ab].txt")]).unwrap(), ["[ab].txt"]);
}

#[test]
fn a_stream_comes_once_unless_it_is_kept() {
    let corpus = |text: &'static str| Corpus {
        place: source::CorpusInput::stream(text.as_bytes()),
        path: "-".into(),
        format: CorpusFormat::Txt,
        text_column: "text".into(),
        bytes: 0,
    };
    let once = corpus("One.<|endoftext|>Two.");
    assert_eq!(once.stories().unwrap().count(), 2);
    assert!(matches!(once.stories(), Err(Error::ComesOnce { .. })));
    let kept = corpus("One.<|endoftext|>Two.<|endoftext|>Three.");
    kept.keep().unwrap();
    assert_eq!(kept.stories().unwrap().next().unwrap().unwrap(), "One.");
    for _ in 0..2 {
        let all: Result<Vec<String>> = kept.stories().unwrap().collect();
        assert_eq!(all.unwrap(), ["One.", "Two.", "Three."]);
    }
}

#[test]
fn a_column_that_is_not_there_names_those_that_are() {
    for (name, text) in [
        ("a.jsonl", "{\"id\": 1, \"story\": \"x\"}\n{\"id\": 2}\n"),
        ("a.json", "[{\"id\": 1, \"story\": \"x\"}]"),
        ("a.csv", "id,story\n1,x\n"),
    ] {
        let found = message(name, text.as_bytes());
        assert!(
            found.contains("has no \"text\" (it has id, story)") && found.contains("--text-column"),
            "{found}"
        );
    }
    // Some records have the column: the others are counted.
    assert_eq!(read("a.jsonl", b"{\"id\": 1}\n{\"text\": \"x\"}\n").unwrap(), ["x"]);
}

#[test]
fn csv_and_json_faults_name_the_line() {
    let message_of = |name: &str, text: &str, expected: &str| {
        let found = message(name, text.as_bytes());
        assert!(found.contains(expected), "{found}");
    };
    message_of("a.csv", "id,text\n1,\"fine,\nindeed\"\n2,not, quoted\n", "line 4: 3 fields");
    message_of("a.csv", "id,text\n1\n", "line 2: 1 fields");
    message_of("a.json", "[\n{\"text\": \"a\"}\n{\"text\": \"b\"}]", "line 3: neither a comma");
    message_of("a.json", "[\"a\",\n\"b\"", "line 2: neither a comma");
    message_of("a.json", "[\"a\",\n", "line 2: the array is cut off");
    message_of("a.json", "[\"a\"]\n[]", "line 2: more after");
    message_of("a.json", "[{\"text\":\n 7}]", "line 2: invalid type");
    message_of("a.json", "[\"a\", ]", "line 1: ");
    assert_eq!(read("a.json", b"").unwrap(), [""; 0]);
    assert_eq!(read("a.json", b" [ ] ").unwrap(), [""; 0]);
    assert_eq!(read("a.csv", b"").unwrap(), [""; 0]);
}
