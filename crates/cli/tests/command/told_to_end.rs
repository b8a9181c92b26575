//! Commands that are told to end. Training saves within moments, at any point. All other commands end at
//! once, by that signal, and leave no partial files. A signal that was ignored when the process began stays
//! ignored.

use crate::patience::{ended, signal, started, told, until};
use crate::place::{Place, Ran};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// A recipe long enough to be stopped midway.
fn long(place: &Place, steps: usize) {
    place.recipe("long.toml", "steps = 30", &format!("steps = {steps}"));
    let text = String::from_utf8(place.read("long.toml")).unwrap();
    place.write("long.toml", text.replace("every = 10", "every = 100"));
}

fn steps_made(place: &Place) -> usize {
    told(place, "run/journal.jsonl").matches("\"kind\":\"step\"").count()
}

fn train(place: &Place, recipe: &str) -> Child {
    started(place, "train", &["train", recipe, "--out", "run"])
}

#[track_caller]
fn assert_saved(place: &Place, mut child: Child, code: i32) {
    let status = ended(&mut child);
    let stderr = told(place, "train.err");
    assert_eq!(status.code(), Some(code), "{status}: {stderr}");
    assert!(stderr.contains("--out run --resume"), "{stderr}");
    assert!(!place.path("run/model").exists());
}

#[track_caller]
fn assert_resumes_to_the_same(place: &Place, recipe: &str) {
    place.good(&["inspect", "run"]);
    place.good(&["train", recipe, "--out", "run", "--resume"]);
    place.good(&["train", recipe, "--out", "whole"]);
    let newest = fs::read_dir(place.path("whole")).unwrap().map(|entry| entry.unwrap().file_name());
    let newest = newest.filter_map(|name| name.into_string().ok()).filter(|name| name.starts_with("step-"));
    let newest = newest.max().unwrap();
    for file in ["model/model.safetensors".to_owned(), format!("{newest}/state.json")] {
        assert!(place.read(&format!("run/{file}")) == place.read(&format!("whole/{file}")), "{file}");
    }
}

#[test]
fn sigterm_ends_training_with_143_and_a_hangup_with_129() {
    let place = Place::new();
    long(&place, 600);
    for (name, code) in [("-TERM", 143), ("-HUP", 129)] {
        let mut child = train(&place, "long.toml");
        until(&mut child, || steps_made(&place) >= 13);
        signal(&child, name);
        assert_saved(&place, child, code);
        assert_resumes_to_the_same(&place, "long.toml");
        for run in ["run", "whole"] {
            fs::remove_dir_all(place.path(run)).unwrap();
        }
    }
}

/// The checkpoint is written before the validation, which is abandoned.
#[test]
fn a_validation_keeps_nobody_waiting() {
    let place = Place::new();
    let story = |i: usize| format!("The heron number {i} caught {} fish and slept. ¡Olé!", i * i % 41);
    place.write("valid.txt", (0..4000).map(story).collect::<Vec<_>>().join("\n<|endoftext|>\n"));
    let prepare = "prepare train.txt --valid valid.txt --vocab-size 300 --out corpus";
    place.good(&prepare.split(' ').collect::<Vec<_>>());
    place.recipe("long.toml", "steps = 30", "steps = 11");
    for (name, step, code) in [("-TERM", 10, 143), ("-INT", 11, 130)] {
        let saved = place.path(&format!("run/step-0000{step}"));
        let mut child = match step {
            10 => train(&place, "long.toml"),
            _ => started(&place, "train", &["train", "long.toml", "--out", "run", "--resume"]),
        };
        until(&mut child, || saved.exists());
        signal(&child, name);
        assert_saved(&place, child, code);
        let validated = format!("\"kind\":\"validation\",\"step\":{step}");
        assert!(!told(&place, "run/journal.jsonl").contains(&validated), "it was given up");
    }
    assert_resumes_to_the_same(&place, "long.toml");
}

/// A recipe whose batch takes long.
fn slow(place: &Place) {
    place.recipe(
        "slow.toml",
        "hidden_size = 16\nintermediate_size = 32",
        "hidden_size = 256\nintermediate_size = 1024",
    );
    let text = String::from_utf8(place.read("slow.toml")).unwrap().replace("layers = 4", "layers = 12");
    let text = text.replace("position_embeddings = 64", "position_embeddings = 512");
    let text =
        text.replace("batch_size = 2", "batch_size = 16").replace("accumulation = 1", "accumulation = 64");
    place.write("slow.toml", text.replace("sequence_length = 32", "sequence_length = 128"));
}

/// A step of many batches is abandoned between two of them.
#[test]
fn a_long_step_keeps_nobody_waiting() {
    let place = Place::new();
    slow(&place);
    let mut child = train(&place, "slow.toml");
    until(&mut child, || told(&place, "run/journal.jsonl").contains("\"kind\":\"start\""));
    sleep(Duration::from_millis(100));
    signal(&child, "-TERM");
    signal(&child, "-TERM"); // which changes nothing
    assert_eq!(ended(&mut child).code(), Some(143), "{}", told(&place, "train.err"));
    assert_eq!(steps_made(&place), 0);
}

#[test]
fn a_second_ctrl_c_leaves_without_saving() {
    let place = Place::new();
    slow(&place);
    let text = String::from_utf8(place.read("slow.toml")).unwrap();
    place.write(
        "slow.toml",
        text.replace("batch_size = 16\naccumulation = 64", "batch_size = 128\naccumulation = 1"),
    );
    let mut child = train(&place, "slow.toml");
    until(&mut child, || told(&place, "run/journal.jsonl").contains("\"kind\":\"start\""));
    sleep(Duration::from_millis(100));
    signal(&child, "-INT");
    until(&mut child, || told(&place, "train.err").contains("Ctrl-C again"));
    signal(&child, "-INT");
    assert_eq!(ended(&mut child).signal(), Some(2), "{}", told(&place, "train.err"));
    assert_eq!(steps_made(&place), 0);
}

/// `nohup` ignores SIGHUP, and a shell ignores Ctrl-C for commands that a script runs in the background.
#[test]
fn what_was_ignored_stays_ignored() {
    let place = Place::new();
    long(&place, 600);
    let own = place.command(&["train", "long.toml", "--out", "run"]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP INT; exec \"$0\" \"$@\""]).arg(own.get_program()).args(own.get_args());
    let file = |name: &str| fs::File::create(place.path(name)).unwrap();
    command.current_dir(place.path("")).stdout(file("train.out")).stderr(file("train.err"));
    let mut child = command.spawn().unwrap();
    until(&mut child, || steps_made(&place) >= 13);
    signal(&child, "-HUP");
    signal(&child, "-INT");
    assert_eq!(ended(&mut child).code(), Some(0), "{}", told(&place, "train.err"));
    assert_eq!(steps_made(&place), 600);
}

/// In its own terminal, which `script` creates. Killing `script` closes it.
#[test]
fn a_terminal_that_is_closed_hangs_nothing() {
    let place = Place::new();
    long(&place, 1500);
    let binary = env!("CARGO_BIN_EXE_offramp");
    for (trap, complete) in [("trap - HUP", false), ("trap '' HUP", true)] {
        let line = format!("{trap}; exec {binary} train long.toml --out run");
        let mut command = Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).env("SHELL", "/bin/sh").env("TERM", "xterm");
        command.current_dir(place.path("")).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let Ok(mut script) = command.spawn() else {
            println!("skipped: there is no `script` here to make a terminal");
            return;
        };
        until(&mut script, || steps_made(&place) >= 400);
        script.kill().unwrap();
        script.wait().unwrap();
        // The run has no parent any more: its journal shows how it ended.
        let mut clock = Command::new("sleep").arg("600").spawn().unwrap();
        until(&mut clock, || told(&place, "run/journal.jsonl").contains("\"kind\":\"finish\""));
        clock.kill().unwrap();
        clock.wait().unwrap();
        let finish = format!("\"complete\":{complete}");
        assert!(told(&place, "run/journal.jsonl").contains(&finish), "{trap}: {finish}");
        assert_eq!(place.path("run/model").exists(), complete);
        // After the run has released the folder, another process may use it.
        let resumed = || place.run(&["train", "long.toml", "--out", "run", "--resume"]).code == 0;
        assert!(
            (0..100).any(|_| resumed() || {
                sleep(Duration::from_millis(100));
                false
            }),
            "{trap}"
        );
        fs::remove_dir_all(place.path("run")).unwrap();
    }
}

/// A folder of weights that takes long to process and always generates the same token, with the tokenizer of
/// `run`. All weights are zero but the embedding, the norm and one row of the head.
fn large(place: &Place, name: &str) {
    let (hidden, layers, wide, vocabulary) = (512, 12, 2048, 300);
    fs::create_dir(place.path(name)).unwrap();
    let config = String::from_utf8(place.read("run/model/config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    for (key, value) in [
        ("hidden_size", hidden),
        ("num_hidden_layers", layers),
        ("intermediate_size", wide),
        ("num_attention_heads", 8),
        ("num_key_value_heads", 8),
        ("head_dim", 64),
        ("max_position_embeddings", 4096),
    ] {
        config[key] = value.into();
    }
    config.as_object_mut().unwrap().remove("early_exit");
    place.write(&format!("{name}/config.json"), config.to_string());
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden]),
        ("lm_head.weight".to_owned(), vec![vocabulary, hidden]),
        ("model.norm.weight".to_owned(), vec![hidden]),
    ];
    for layer in 0..layers {
        let of = |part: &str| format!("model.layers.{layer}.{part}.weight");
        let projections =
            ["q_proj", "k_proj", "v_proj", "o_proj"].map(|part| of(&format!("self_attn.{part}")));
        tensors.extend(projections.map(|name| (name, vec![hidden, hidden])));
        tensors.extend(["gate_proj", "up_proj"].map(|part| (of(&format!("mlp.{part}")), vec![wide, hidden])));
        tensors.push((of("mlp.down_proj"), vec![hidden, wide]));
        tensors.extend(["input", "post_attention"].map(|at| (of(&format!("{at}_layernorm")), vec![hidden])));
    }
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for (name, shape) in tensors {
        let begin = end;
        end += 4 * shape.iter().product::<i32>();
        header
            .insert(name, serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}));
    }
    let header = serde_json::Value::from(header).to_string();
    let mut file = fs::File::create(place.path(&format!("{name}/model.safetensors"))).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let ones = |count: i32| 1f32.to_le_bytes().repeat(count as usize);
    let zeros = |count: i32| vec![0; 4 * count as usize];
    file.write_all(&ones(vocabulary * hidden)).unwrap();
    file.write_all(&[zeros(65 * hidden), ones(hidden), zeros((vocabulary - 66) * hidden)].concat()).unwrap();
    file.write_all(&ones(hidden)).unwrap();
    file.set_len(8 + header.len() as u64 + u64::try_from(end).unwrap()).unwrap(); // a sparse file: it takes no space
    fs::copy(place.path("run/model/tokenizer.json"), place.path(&format!("{name}/tokenizer.json"))).unwrap();
}

/// Every file under a folder, with its length.
fn files(place: &Place) -> BTreeSet<(String, u64)> {
    let (mut found, mut folders) = (BTreeSet::new(), vec![place.path("")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap()) {
            let metadata = entry.metadata().unwrap();
            match metadata.is_dir() {
                true => folders.push(entry.path()),
                false => _ = found.insert((entry.path().display().to_string(), metadata.len())),
            }
        }
    }
    found
}

/// Whether the command has started to write.
fn half_made(place: &Place) -> bool {
    files(place).iter().any(|(path, _)| path.contains("/.offramp-"))
}

#[test]
fn all_else_ends_at_once_by_the_signal_and_leaves_nothing_half_made() {
    let place = Place::trained();
    large(&place, "large");
    let story = |i: usize| format!("The heron number {i} caught {} fish and slept. ¡Olé!", i * i % 41);
    place.write("long.txt", (0..400_000).map(story).collect::<Vec<_>>().join("\n<|endoftext|>\n"));
    for (words, writes) in [
        ("prepare long.txt --out prepared", true),
        ("quantize large --to int4 --out quantized", true),
        ("eval large --data long.txt", false),
        ("bench large --runs 1000", false),
        ("generate large --temperature 0 --max-new-tokens 4000", false),
        ("sweep large --runs 10 --out sweep.svg", false),
        ("verify large --prompts 12", false),
        ("card large --data long.txt", false),
    ] {
        for (name, number) in [("-TERM", 15), ("-INT", 2), ("-HUP", 1)] {
            let before = files(&place);
            let mut child = started(&place, "work", &words.split(' ').collect::<Vec<_>>());
            match writes {
                true => until(&mut child, || half_made(&place)),
                false => sleep(Duration::from_millis(300)),
            }
            signal(&child, name);
            let status = ended(&mut child);
            let stderr = told(&place, "work.err");
            assert_eq!(status.signal(), Some(number), "{words}, {name}: {status}: {stderr}");
            assert!(!stderr.contains("error"), "{words}, {name}: {stderr}");
            for file in ["work.out", "work.err"] {
                fs::remove_file(place.path(file)).unwrap();
            }
            assert_eq!(files(&place), before, "{words}, {name}");
        }
    }
}

/// As with `| head`: the text ends with the next token.
#[test]
fn a_reader_who_leaves_ends_the_work() {
    let place = Place::trained();
    large(&place, "large");
    let mut command = place.command(&["generate", "large", "--temperature", "0", "--max-new-tokens", "4000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 20]).unwrap();
    drop(stdout);
    let status = ended(&mut child);
    assert_eq!(status.code(), Some(141), "{status}");
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.stderr.lines().last(), Some("stopped: the reader of stdout has gone"), "{}", ran.stderr);
}
