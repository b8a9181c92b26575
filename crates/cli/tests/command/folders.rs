//! Model folders, from outside: names on the Hub, the Hub's cache, paths with unusual characters.

use crate::place::{Place, Ran};
use std::ffi::OsStr;

/// By its name on the Hub, whatever cache folder the settings of the Hub's own tools name.
#[test]
fn what_lies_in_the_hubs_cache_is_found() {
    let place = Place::trained();
    let commit = "5d1f0e";
    let settings = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "HOME"];
    let run = |argument: &str, setting: &str, cache: &str| {
        let mut command = place.command(&["inspect", argument]);
        for name in settings {
            command.env_remove(name);
        }
        Ran::of(command.env(setting, place.path(cache)).output().unwrap())
    };
    let places = ["a cache", "b", "c/hub", "d/huggingface/hub", "e/.cache/huggingface/hub"];
    for (setting, cache) in settings.into_iter().zip(places) {
        let root = format!("{cache}/models--org--name");
        let snapshot = place.path(&root).join("snapshots").join(commit);
        std::fs::create_dir_all(place.path(&root).join("refs")).unwrap();
        std::fs::create_dir_all(&snapshot).unwrap();
        for file in std::fs::read_dir(place.path("run/model")).unwrap().map(Result::unwrap) {
            std::fs::copy(file.path(), snapshot.join(file.file_name())).unwrap();
        }
        place.write(&format!("{root}/refs/main"), commit);
        let value = cache.split(['/']).next().unwrap();
        let ran = run("org/name", setting, value);
        assert!(ran.code == 0 && ran.stdout.contains(&snapshot.display().to_string()), "{}", ran.stderr);
        run("org/other", setting, value).assert_error(2, &["hub's cache", "`offramp pull org/other`"]);
        assert!(place.good(&["inspect", &root]).contains(commit));
    }
}

#[test]
fn every_command_that_wants_a_model_says_what_it_was_given_instead() {
    let place = Place::trained();
    place.write("tiny.gguf", "GGUF");
    for command in [
        &["inspect", "tiny.gguf"][..],
        &["eval", "tiny.gguf", "--data", "valid.txt"],
        &["generate", "tiny.gguf"],
        &["bench", "tiny.gguf"],
        &["verify", "tiny.gguf"],
        &["sweep", "tiny.gguf"],
        &["quantize", "tiny.gguf", "--to", "int8", "--out", "x"],
        &["export", "tiny.gguf", "--gguf", "x.gguf"],
    ] {
        place.run(command).assert_error(2, &["tiny.gguf: it ends in the middle of its first numbers"]);
    }
    place
        .run(&["card", "tiny.gguf", "--out", "x"])
        .assert_error(2, &["tiny.gguf: it ends in the middle of its first numbers"]);
    std::fs::remove_file(place.path("run/model/tokenizer.json")).unwrap();
    place.write("run/model/tokenizer.model", "x");
    place
        .run(&["generate", "run"])
        .assert_error(2, &["no tokenizer.json", "tokenizer.model", "save_pretrained('.')"]);
}

#[cfg(target_os = "linux")]
fn words(words: &[&'static str]) -> Vec<&'static OsStr> {
    words.iter().map(|&word| OsStr::new(word)).collect()
}

/// JSON is text; the names of files may be other bytes.
#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_no_utf_8_are_said_in_json() {
    use std::os::unix::ffi::OsStrExt;
    let place = Place::trained();
    let name = |bytes: &'static [u8]| OsStr::from_bytes(bytes);
    let (run, data, out) = (name(b"r\xffn"), name(b"v\xff.txt"), name(b"o\xfft"));
    std::fs::rename(place.path("run"), place.path("").join(run)).unwrap();
    std::fs::copy(place.path("valid.txt"), place.path("").join(data)).unwrap();
    std::fs::copy(place.path("recipe.toml"), place.path("").join(name(b"r\xff.toml"))).unwrap();
    let few = words(&["--prompt-tokens", "4", "--prompts", "1", "--max-new-tokens", "4"]);
    let sweep = words(&["--prompt-tokens", "4", "--new-tokens", "4", "--runs", "1", "--lengths", "1"]);
    let bench = words(&["--prompt-tokens", "4", "--new-tokens", "4", "--runs", "1", "--verify", "0"]);
    let quantize = [&words(&["--to", "int8", "--out"])[..], &[out]].concat();
    let train = [name(b"r\xff.toml"), OsStr::new("--out"), name(b"t\xff")];
    for (command, more) in [
        ("inspect", vec![run]),
        ("eval", vec![run, OsStr::new("--data"), data]),
        ("bench", [&[run], &bench[..]].concat()),
        ("verify", [&[run, OsStr::new("--data"), data], &few[..]].concat()),
        ("sweep", [&[run, OsStr::new("--data"), data], &sweep[..]].concat()),
        ("quantize", [&[run], &quantize[..]].concat()),
        ("card", [&[run], &words(&["--runs", "0"])[..]].concat()),
        ("generate", vec![run, OsStr::new("--max-new-tokens"), OsStr::new("4")]),
        ("train", train.to_vec()),
    ] {
        let ran = Ran::of(place.command(&[command, "--json"]).args(&more).output().unwrap());
        assert_eq!(ran.code, 0, "{command}: {}", ran.stderr);
        let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(command == "generate" || answer.to_string().contains('\u{fffd}'), "{command}: {answer}");
    }
}
