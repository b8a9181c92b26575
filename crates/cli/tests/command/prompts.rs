//! The prompts of `generate`, and where its texts end.

use crate::place::{Place, Ran};
use std::io::Write;
use std::process::Stdio;

const MISTAKE: i32 = 2;

/// Greedy, a few tokens.
fn generate<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&["generate", "run", "--temperature", "0", "--max-new-tokens", "12"], more].concat()
}

#[test]
fn a_prompt_comes_as_an_argument_in_a_file_or_on_stdin() {
    let place = Place::trained();
    for prompt in ["- milk\n- eggs", "-x", "--json?", "The heron"] {
        let told = place.good(&generate(&["--prompt", prompt]));
        assert!(told.starts_with(prompt), "{told}");
        place.write("prompt.txt", format!("{prompt}\n"));
        assert_eq!(place.good(&generate(&["--prompt-file", "prompt.txt"])), told);
        let mut command = place.command(&generate(&["--prompt-file", "-"]));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(prompt.as_bytes()).unwrap();
        assert_eq!(Ran::of(child.wait_with_output().unwrap()).stdout, told);
    }
    place.write("latin1.txt", b"caf\xe9");
    place.write("long.txt", "heron ".repeat(40_000));
    place.write("longer.txt", "heron ".repeat(1 << 21));
    for (file, parts) in [
        ("nowhere.txt", ["nowhere.txt", "No such file"]),
        ("latin1.txt", ["latin1.txt", "byte 3"]),
        ("long.txt", ["context of 64", "shorten"]),
        ("longer.txt", ["4194304", "bytes"]),
    ] {
        let ran = place.run(&generate(&["--prompt-file", file]));
        ran.assert_error(MISTAKE, &parts);
        assert_eq!(ran.stdout, "");
    }
    let both = place.run(&generate(&["--prompt", "x", "--prompt-file", "long.txt"]));
    assert_eq!((both.code, both.stdout.as_str()), (MISTAKE, ""));
}

#[test]
fn nothing_is_printed_before_all_options_are_checked() {
    let place = Place::trained();
    let long = "heron ".repeat(100);
    for wrong in [
        &["--temperature", "-1"][..],
        &["--temperature", "nan"],
        &["--top-p", "0"],
        &["--top-p", "-0.5"],
        &["--repetition-penalty", "0"],
        &["--exit-layer", "0"],
        &["--exit-layer", "5"],
        &["--prompt", &long],
        &["--stop", ""],
        &["--speculate", "9:2"],
        &["--speculate", "0:2"],
        &["--confidence-threshold", "1", "--confidence-exits", "9"],
        &["--confidence-exits", "2"],
        &["--max-new-tokens", "-1"],
        &["--top-k", "-1"],
        &["--seed", "x"],
        &["--draft-head", "x"],
    ] {
        let ran = place.run(&[&["generate", "run"], wrong].concat());
        ran.assert_error(MISTAKE, &[]);
        assert_eq!((ran.stdout.as_str(), ran.stderr.lines().count()), ("", 1), "{wrong:?}: {}", ran.stderr);
    }
}

#[test]
fn a_special_token_in_a_prompt_is_that_token_unless_it_is_spelled_out() {
    let place = Place::trained();
    let tokens = |more: &[&str]| {
        let answer = place.json(&generate(&[&["--prompt", "a<|endoftext|>b"], more].concat()));
        answer["prompt_tokens"].as_u64().unwrap()
    };
    assert_eq!(tokens(&[]), 3);
    assert!(tokens(&["--plain-text"]) > 3);
}

#[test]
fn a_stop_string_is_never_printed() {
    let place = Place::trained();
    let told = place.good(&generate(&["--prompt", "The"]));
    let text = told.strip_prefix("The").unwrap().trim_end_matches('\n');
    let letters: Vec<char> = text.chars().collect();
    for (from, to) in [(1, 3), (4, 9)] {
        let stop: String = letters[from..to].iter().collect();
        let before = &text[..text.find(&stop).unwrap()];
        for way in [&[][..], &["--speculate", "2:3"], &["--stop", "\u{1}", "--trace"]] {
            let arguments = generate(&[&["--prompt", "The", "--stop", &stop], way].concat());
            let answer = place.json(&arguments);
            assert_eq!((&answer["text"], &answer["stop"]), (&before.into(), &"stop_string".into()));
            assert_eq!(answer["stop_string"], stop);
            assert_eq!(place.good(&arguments), format!("The{before}\n"));
        }
        let ran = place.run(&generate(&["--prompt", "The", "--stop", &stop]));
        assert!(ran.stderr.contains(&format!("stopped before {stop:?}")), "{}", ran.stderr);
    }
}

#[test]
fn the_folder_says_how_to_sample_and_the_summary_says_so() {
    let place = Place::trained();
    let summary = |more: &[&str]| place.run(&[&["generate", "run"], more].concat()).stderr;
    assert!(summary(&[]).contains("; temperature 0.6, top-p 0.9]"), "{}", summary(&[]));
    let config = r#"{"eos_token_id": 0, "do_sample": true, "temperature": 0.7, "top_k": 20}"#;
    place.write("run/model/generation_config.json", config);
    let said = "; temperature 0.7, top-k 20, as generation_config.json says]";
    assert!(summary(&[]).contains(said), "{}", summary(&[]));
    assert!(summary(&["--temperature", "0"]).contains("; greedy"), "the user's word comes first");
    let answer = place.json(&["generate", "run", "--top-k", "3"]);
    assert_eq!(
        (&answer["sampling"]["top_k"], &answer["sampling"]["from_generation_config"]),
        (&3.into(), &true.into())
    );
    place.write("run/model/generation_config.json", r#"{"temperature": "hot"}"#);
    let expected = ["generation_config.json", "temperature is \"hot\"", "remove it"];
    place.run(&["generate", "run"]).assert_error(MISTAKE, &expected);
}
