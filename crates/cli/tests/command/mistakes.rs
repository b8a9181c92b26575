//! Bad input: one line says what is wrong, where, and what to do. The exit code tells mistakes from failures.

use crate::place::{Place, Ran};
use std::fs;

const MISTAKE: i32 = 2;
const FAILURE: i32 = 1;

#[test]
fn arguments_that_mean_nothing() {
    let place = Place::trained();
    for exit in ["0", "5"] {
        let expected = [&*format!("exit layer {exit}"), "1 to 4"];
        place.run(&["generate", "run", "--exit-layer", exit]).assert_error(MISTAKE, &expected);
        place.run(&["eval", "run", "--data", "valid.txt", "--exits", exit]).assert_error(MISTAKE, &expected);
        place.run(&["bench", "run", "--exits", exit]).assert_error(MISTAKE, &expected);
    }
    let long = "heron ".repeat(100);
    place.run(&["generate", "run", "--prompt", &long]).assert_error(MISTAKE, &["context of 64", "shorten"]);
    place.run(&["generate", "run", "--temperature", "nan"]).assert_error(MISTAKE, &["temperature", "0"]);
    place.run(&["generate", "run", "--top-p", "0"]).assert_error(MISTAKE, &["top_p"]);
    place.run(&["bench", "run"]).assert_error(MISTAKE, &["context of 64"]);
    place.run(&["eval", "run", "--data", "valid.txt", "--context", "65"]).assert_error(MISTAKE, &["1 to 64"]);
    place.run(&["eval", "nowhere", "--data", "valid.txt"]).assert_error(MISTAKE, &["nowhere"]);
    place.run(&["eval", "run", "--data", "nowhere.txt"]).assert_error(MISTAKE, &["nowhere.txt"]);
    assert_eq!(place.run(&["generate", "run", "--exit-layer", "twelve"]).code, MISTAKE);
    let unknown = place.command(&["bench", "run"]).env("OFFRAMP_KERNELS", "abacus").output().unwrap();
    Ran::of(unknown).assert_error(MISTAKE, &["OFFRAMP_KERNELS", "abacus", "reference"]);
}

#[test]
fn stories_that_cannot_be_read() {
    let place = Place::new();
    place.write("empty.txt", "\n<|endoftext|>\n\n");
    place.write("bytes.txt", b"A good start.\n\xff\xfe\n");
    place.write("short.txt", "Hi.");
    place.write("broken.jsonl", "{\"text\": \"fine\"}\n{\"text\" 1}\n");
    place.write("stories.docx", "x");
    place.write("broken.parquet", b"PAR1 and nothing else PAR1");
    for (file, expected) in [
        ("empty.txt", "empty.txt"),
        ("bytes.txt", "byte 14 is not valid UTF-8"),
        ("broken.jsonl", "line 2"),
        ("stories.docx", ".jsonl"),
        ("broken.parquet", "broken.parquet"),
    ] {
        let ran = place.run(&["prepare", file, "--out", "other"]);
        ran.assert_error(MISTAKE, &[file, expected]);
        assert!(!place.path("other/corpus.json").exists(), "{file} leaves nothing that looks whole");
    }
    // Shorter than one window.
    place.good(&["prepare", "short.txt", "--out", "short"]);
    place.recipe("short.toml", "corpus = \"corpus\"", "corpus = \"short\"");
    place.run(&["train", "short.toml"]).assert_error(MISTAKE, &["short: ", "33 one window", "longer corpus"]);
    assert!(!place.path("runs/short").exists());
}

#[test]
fn data_of_another_tokenizer() {
    let place = Place::trained();
    place.good(&["prepare", "valid.txt", "--out", "gpt2"]);
    place.run(&["eval", "run", "--data", "gpt2"]).assert_error(MISTAKE, &["gpt2", "another tokenizer"]);
}

#[test]
fn recipes_with_mistakes() {
    let place = Place::new();
    for (from, to, expected) in [
        ("steps = 30", "stpes = 30", "did you mean steps?"),
        ("[checkpoint]", "[chekpoint]", "did you mean [checkpoint]?"),
        ("steps = 30", "steps = \"thirty\"", "training.steps"),
        ("num_key_value_heads = 2", "num_key_value_heads = 3", "num_key_value_heads is 3"),
        ("hidden_size = 16", "hidden_size = 99999999999", "hidden_size"),
        ("corpus = \"corpus\"", "corpus = \"nowhere\"", "nowhere"),
    ] {
        place.recipe("wrong.toml", from, to);
        place.run(&["train", "wrong.toml"]).assert_error(MISTAKE, &[expected]);
    }
    place.run(&["train", "none.toml"]).assert_error(MISTAKE, &["none.toml"]);
    place.run(&["train", "recipe.toml", "--resume"]).assert_error(MISTAKE, &["without --resume"]);
    place.good(&["train", "recipe.toml"]);
    place.run(&["train", "recipe.toml"]).assert_error(MISTAKE, &["runs/recipe", "--resume"]);
}

/// Changes to the bytes of the weights' file, and the error for each.
fn assert_weights(place: &Place, change: impl FnOnce(&mut Vec<u8>), expected: &[&str]) {
    let (file, whole) = ("run/model/model.safetensors", place.read("run/model/model.safetensors"));
    let mut bytes = whole.clone();
    change(&mut bytes);
    place.write(file, bytes);
    let ran = place.run(&["generate", "run", "--max-new-tokens", "1"]);
    place.write(file, whole);
    ran.assert_error(MISTAKE, &[&["model.safetensors"], expected].concat());
}

#[test]
fn weights_that_lie() {
    let place = Place::trained();
    assert_weights(&place, |bytes| bytes.truncate(4), &[]);
    assert_weights(&place, |bytes| bytes.truncate(bytes.len() - 4), &[]);
    assert_weights(&place, |bytes| bytes[..8].copy_from_slice(&(1u64 << 40).to_le_bytes()), &[]);
    assert_weights(&place, |bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()), &[]);
    assert_weights(
        &place,
        |bytes| {
            let end = bytes.len() - 4;
            bytes[end..].copy_from_slice(&f32::NAN.to_le_bytes());
        },
        &["lm_head.weight", "NaN"],
    );
    let rename = |from: &'static str, to: &'static str| {
        move |bytes: &mut Vec<u8>| {
            let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    };
    assert_weights(&place, rename("model.norm.weight", "model.mron.weight"), &["model.norm.weight"]);
    assert_weights(&place, rename("[32,16]", "[16,32]"), &["[32, 16]", "[16, 32]"]);
}

#[test]
fn configs_that_lie() {
    let place = Place::trained();
    let whole = String::from_utf8(place.read("run/model/config.json")).unwrap();
    for (from, to, expected) in [
        ("\"hidden_size\": 16", "\"hidden_size\": 4000000000000", "hidden_size"),
        ("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 0", "num_hidden_layers"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "num_key_value_heads"),
        ("\"vocab_size\": 300", "\"vocab_size\": 301", "embed_tokens"),
        ("\"attention_bias\": false", "\"attention_bias\": true", "q_proj.bias"),
        ("{", "[", "config.json"),
    ] {
        assert!(whole.contains(from), "{from} in {whole}");
        place.write("run/model/config.json", whole.replacen(from, to, 1));
        place.run(&["generate", "run"]).assert_error(MISTAKE, &[expected]);
    }
    fs::remove_file(place.path("run/model/tokenizer.json")).unwrap();
    place.write("run/model/config.json", whole);
    place.run(&["generate", "run"]).assert_error(MISTAKE, &["tokenizer.json"]);
}

#[test]
fn folders_that_cannot_be_written() {
    let place = Place::new();
    place.write("file", "not a folder");
    place.run(&["prepare", "train.txt", "--out", "file/out"]).assert_error(FAILURE, &["file/out"]);
    place.run(&["train", "recipe.toml", "--out", "file/run"]).assert_error(FAILURE, &["file/run"]);
}

/// A limit on file sizes stands in for a disk that fills up midway.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let place = Place::new();
    let limited = |blocks: usize, arguments: &str| {
        let line = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" {arguments}");
        let binary = env!("CARGO_BIN_EXE_offramp");
        let mut command = std::process::Command::new("sh");
        let output = command.args(["-c", &line, binary]).current_dir(place.path("")).output().unwrap();
        Ran::of(output)
    };
    let ran = limited(1, "prepare train.txt --vocab-size 300 --out full");
    ran.assert_error(FAILURE, &["cannot write", "full/"]);
    assert!(!place.path("full/corpus.json").exists());

    limited(20, "train recipe.toml --out run").assert_error(FAILURE, &["cannot write", "step-000010"]);
    assert!(!place.path("run/step-000010").exists(), "whole or not at all");
    // With space again, the run starts over and ends with the same result.
    place.good(&["train", "recipe.toml", "--out", "run", "--resume"]);
    place.good(&["train", "recipe.toml", "--out", "whole"]);
    let model = |run: &str| place.read(&format!("{run}/model/model.safetensors"));
    assert!(model("run") == model("whole"));
}
