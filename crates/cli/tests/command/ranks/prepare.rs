//! Preparing a corpus in several processes.

use super::{mpirun, offramp, signal};
use crate::place::{Place, Ran};
use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

/// Every file of a folder, hidden ones too; none if it is not there.
fn files(place: &Place, folder: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(place.path(folder)).into_iter().flatten().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().display().to_string(), fs::read(entry.path()).unwrap_or_default()))
        .collect()
}

fn prepare(place: &Place, mpirun: &[String], count: usize, words: &[&str]) -> Ran {
    Ran::of(offramp(place, mpirun, count, &[&["prepare"], words].concat()).output().unwrap())
}

/// Some stories, each with its number.
fn stories(range: std::ops::Range<usize>) -> String {
    let story = |i: usize| format!("Heron {i} caught {} fish. {}", i * i % 97, "¡Olé! ".repeat(i % 40));
    range.map(story).collect::<Vec<_>>().join("\n<|endoftext|>\n")
}

#[test]
fn processes_write_the_files_of_one() {
    let (Some(mpirun), place) = (mpirun(), Place::new()) else { return };
    place.write("long.txt", stories(0..20_000));
    let lines: Vec<_> = (0..900).map(|i| format!("{{\"text\": \"Tale {i}.\"}}")).collect();
    place.write("lines.jsonl", lines.join("\n"));
    for (index, words) in [
        &["long.txt", "--valid", "valid.txt", "--vocab-size", "400"][..],
        &["train.txt", "lines.jsonl", "long.txt", "valid.txt"],
        &["lines.jsonl", "--json"],
    ]
    .into_iter()
    .enumerate()
    {
        let one = format!("one-{index}");
        let said = place.good(&[&["prepare"], words, &["--out", &one]].concat());
        for count in [1, 2, 3, 4] {
            let out = format!("of-{count}-{index}");
            let ran = prepare(&place, &mpirun, count, &[words, &["--out", &out]].concat());
            assert_eq!(ran.code, 0, "{}", ran.stderr);
            assert!(files(&place, &out) == files(&place, &one), "{count} processes, {words:?}");
            assert_eq!(ran.stdout.replace(&out, &one), said, "one of them speaks");
        }
    }
}

#[test]
fn a_file_that_one_process_cannot_read_is_one_line_and_the_folder_stays() {
    let (Some(mpirun), place) = (mpirun(), Place::new()) else { return };
    let before = files(&place, "corpus");
    place.write("bad.txt", [stories(0..3000).as_bytes(), b"\n<|endoftext|>\nBad: \xFF"].concat());
    place.write("blank.txt", "\n".repeat(5000));
    for (words, expected) in [
        (&["train.txt", "bad.txt"][..], &["rank 3 of 4", "bad.txt", "UTF-8"][..]),
        (&["blank.txt", "train.txt"], &["of 4", "blank.txt holds no stories"]),
        (&["train.txt", "absent.txt"], &["rank 0 of 4", "absent.txt"]),
        (&["train.txt", "--tokenizer", "absent.json"], &["rank 0 of 4", "absent.json"]),
    ] {
        let ran = prepare(&place, &mpirun, 4, &[words, &["--out", "corpus"]].concat());
        let errors: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(ran.code != 0 && errors.len() == 1, "{}", ran.stderr);
        assert!(expected.iter().all(|word| errors[0].contains(word)), "{errors:?}");
        assert!(files(&place, "corpus") == before, "{words:?}");
    }
}

/// In the middle of the encoding, while all have written something.
#[test]
fn a_launcher_that_is_told_to_end_leaves_nothing() {
    let (Some(mpirun), place) = (mpirun(), Place::new()) else { return };
    let before = files(&place, "corpus");
    let part = stories(0..10_000) + "\n<|endoftext|>\n";
    place.write("long.txt", part.repeat(100));
    for name in ["TERM", "INT"] {
        let words = ["--threads", "1", "prepare", "long.txt", "--out", "corpus"];
        let mut command = offramp(&place, &mpirun, 3, &words);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let shared = place.path("corpus/.offramp-shared.partial");
        let begun = |rank: usize| {
            let part = shared.join(format!("train-part-{rank}"));
            fs::metadata(part).is_ok_and(|part| part.len() > 0)
        };
        while !(begun(1) && begun(2)) {
            assert!(child.try_wait().unwrap().is_none(), "it prepares");
            thread::sleep(Duration::from_millis(2));
        }
        signal(name, &child.id().to_string());
        child.wait().unwrap(); // by which code differs: MPICH 4's launcher ends with 0
        assert!(files(&place, "corpus") == before, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_is_read_by_the_first_process() {
    let (Some(mpirun), place) = (mpirun(), Place::new()) else { return };
    let pipe = place.path("pipe.txt");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let text = place.read("train.txt");
    let writer = thread::spawn(move || fs::write(pipe, text).unwrap());
    let ran = prepare(&place, &mpirun, 3, &["pipe.txt", "--vocab-size", "300", "--out", "piped"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    writer.join().unwrap();
    assert!(ran.stderr.contains("the first prepares alone"), "{}", ran.stderr);
    assert!(place.read("piped/train-00000.tokens") == place.read("corpus/train-00000.tokens"));
}

#[test]
fn a_run_whose_recipe_names_stories_prepares_them_together() {
    let (Some(mpirun), place) = (mpirun(), Place::new()) else { return };
    place.write("long.txt", stories(0..5000));
    let data = "train = \"long.txt\"\nvalid = \"valid.txt\"\ntokenizer = \"bpe\"\nvocab_size = 300";
    place.recipe("stories.toml", "corpus = \"corpus\"", data);
    let text = String::from_utf8(place.read("stories.toml")).unwrap();
    place.write("stories.toml", text.replace("accumulation = 1", "accumulation = 4"));
    place.good(&["train", "stories.toml", "--out", "one"]);
    for count in [2, 4] {
        let out = format!("of-{count}");
        let words = ["train", "stories.toml", "--out", &out];
        let ran = Ran::of(offramp(&place, &mpirun, count, &words).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        for folder in ["corpus", "model"] {
            let [found, expected] = [&out, "one"].map(|run| files(&place, &format!("{run}/{folder}")));
            assert!(found == expected && !expected.is_empty(), "{folder}, {count} processes");
        }
    }
}
