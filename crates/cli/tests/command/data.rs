//! Every command that takes a corpus accepts all ways to name one.

use crate::place::{Place, Ran};
use std::io::Write;
use std::process::Stdio;

/// The exit code of a user's mistake.
const MISTAKE: i32 = 2;

fn piped(place: &Place, arguments: &[&str], input: &str) -> Ran {
    let mut command = place.command(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command that refuses its input closes the pipe.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let ran = Ran::of(child.wait_with_output().unwrap());
    writer.join().unwrap();
    ran
}

/// The stories of a .txt file, as JSON lines with another key than the usual one.
fn lines(place: &Place, name: &str) -> String {
    let text = String::from_utf8(place.read(name)).unwrap();
    let stories = text.split("\n<|endoftext|>\n");
    stories.map(|story| serde_json::json!({ "story": story }).to_string() + "\n").collect()
}

#[test]
fn every_way_of_naming_it_scores_the_same() {
    let place = Place::trained();
    let exits = |arguments: &[&str]| place.json(&[&["eval", "run"], arguments].concat())["exits"].clone();
    let expected = exits(&["--data", "valid.txt"]);
    std::fs::create_dir(place.path("folder")).unwrap();
    let tales = String::from_utf8(place.read("valid.txt")).unwrap();
    let (first, second) = tales.split_at(tales.find("<|endoftext|>").unwrap());
    place.write("folder/a.txt", first);
    place.write("folder/b.txt", second);
    place.write("tales.jsonl", lines(&place, "valid.txt"));
    for arguments in [
        &["--data", "folder"][..],
        &["--data", "folder/*.txt"],
        &["--data", "folder/a.txt", "--data", "folder/b.txt"],
        &["--data", "tales.jsonl", "--text-column", "story"],
    ] {
        assert_eq!(exits(arguments), expected, "{arguments:?}");
    }
    let ran = piped(&place, &["eval", "run", "--data", "-", "--json"], &tales);
    assert!(ran.stderr.contains("plain text") && ran.stderr.contains("--text-format"), "{}", ran.stderr);
    let found: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&found["exits"], &found["stories"]), (&expected, &11.into()));
}

#[test]
fn every_command_that_takes_a_corpus_takes_it_so() {
    let place = Place::trained();
    place.write("tales.jsonl", lines(&place, "train.txt"));
    let tales = ["tales.jsonl", "--text-column", "story"];
    for command in [
        &["verify", "run", "--prompts", "2", "--prompt-tokens", "4", "--speculate", "2:2", "--data"][..],
        &[
            "sweep",
            "run",
            "--prompt-tokens",
            "4",
            "--new-tokens",
            "8",
            "--runs",
            "1",
            "--lengths",
            "2",
            "--data",
        ],
        &["generate", "run", "--prompt", "The", "--agreement", "0.5", "--calibrate-on"],
        &["generate", "run", "--speculate", "2:2", "--draft-shortlist", "40", "--draft-corpus"],
        &["card", "run", "--runs", "0", "--data"],
    ] {
        place.good(&[command, &tales].concat());
    }
}

/// Training a tokenizer reads the stories twice, and a pipe can be read only once.
#[test]
fn a_pipe_is_prepared_as_its_file_is() {
    let place = Place::new();
    let input = lines(&place, "train.txt");
    place.write("tales.jsonl", &input);
    let options = ["--vocab-size", "290", "--text-format", "jsonl", "--text-column", "story", "--out"];
    place.good(&[&["prepare", "tales.jsonl"], &options[..], &["file"]].concat());
    let ran = piped(&place, &[&["prepare", "-"], &options[..], &["pipe"]].concat(), &input);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
    for name in ["tokenizer.json", "train-00000.tokens"] {
        assert!(place.read(&format!("pipe/{name}")) == place.read(&format!("file/{name}")), "{name}");
    }
    let twice = ["prepare", "-", "--valid", "-", "--text-format", "jsonl", "--out", "never"];
    piped(&place, &twice, &input).assert_error(MISTAKE, &["asked for twice", "save it to a file"]);
    let parquet = ["prepare", "-", "--text-format", "parquet", "--out", "never"];
    piped(&place, &parquet, "PAR1").assert_error(MISTAKE, &["save it to a file first"]);
}

#[test]
fn what_was_found_is_said() {
    let place = Place::empty();
    place.write("one.txt", "A line.\r\n".repeat(120));
    let ran = place.run(&["prepare", "one.txt", "--out", "one"]);
    assert!(ran.stdout.contains("1 stories"), "{}", ran.stdout);
    assert!(ran.stderr.contains("120 lines are one story") && ran.stderr.contains("CRLF"), "{}", ran.stderr);
    place.write("some.jsonl", "{\"text\": \"One.\"}\n{\"text\": null}\n{}\n");
    let ran = place.run(&["prepare", "some.jsonl", "--out", "some"]);
    assert!(ran.stderr.contains("2 records without a text"), "{}", ran.stderr);
    place
        .run(&["prepare", "some.jsonl", "--text-column", "story", "--out", "never"])
        .assert_error(MISTAKE, &["has no \"story\" (it has text)", "--text-column"]);
}
