//! Streams that cannot be used: full, closed, a pipe whose reader has gone, a terminal that has hung up. No
//! command hangs or panics, and the exit codes follow this rule:
//!
//! - stdout gets the result. If it is full, the exit code is 1, and a line on stderr says so. If its reader
//!   has gone, the exit code is 141. A closed stdout counts as `/dev/null`: nobody asked for the result.
//! - stderr gets progress. If it cannot be written, neither the result nor the exit code changes.

use crate::patience::ended;
use crate::place::Place;
use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Stream {
    Alive,
    Full,
    Closed,
    Broken,
}

use Stream::{Alive, Broken, Closed, Full};

const ALL: [[Stream; 2]; 10] = [
    [Full, Alive],
    [Closed, Alive],
    [Broken, Alive],
    [Alive, Full],
    [Alive, Closed],
    [Alive, Broken],
    [Full, Full],
    [Closed, Closed],
    [Broken, Broken],
    [Broken, Full],
];
/// For commands that take seconds.
const SOME: [[Stream; 2]; 2] = [[Broken, Full], [Full, Closed]];

/// Commands that succeed, each with little work. `OUT` becomes another name in each run.
const WORK: &[&str] = &[
    "chat run --max-new-tokens 4",
    "prepare train.txt --valid valid.txt --vocab-size 300 --out OUT",
    "train recipe.toml --out OUT",
    "train recipe.toml --out OUT --profile --json",
    "train recipe.toml --out run --plot",
    "export run --gguf OUT.gguf --type f32",
    "eval run --data valid.txt",
    "bench run --prompt-tokens 8 --new-tokens 4 --runs 1 --exits 4",
    "generate run --max-new-tokens 20",
    "generate run --max-new-tokens 20 --speculate 2:2 --trace",
    "generate run --max-new-tokens 20 --json",
    "inspect run",
    "quantize run --to int8 --out OUT",
    "sweep run --data valid.txt --exits 2 --lengths 2 --runs 1 --prompt-tokens 4 --new-tokens 8 --out OUT",
    "verify run --data valid.txt --prompts 2 --prompt-tokens 4 --max-new-tokens 8 --speculate 2:2",
    "card run --data valid.txt --runs 0",
    "demo --max-new-tokens 1",
    "train recipe.toml --plan",
    "list",
    "--help",
    "--version",
    "help train",
];

/// Commands that fail, one for each reason: no command, an unknown one, an unknown argument, no such file, a
/// bad value.
const MISTAKES: &[&str] = &[
    "pull org/name", // tests ask no hub
    "remove org/name",
    "chat nowhere",
    "",
    "evaluate run",
    "demo --depth 3",
    "prepare none.txt --out OUT",
    "train none.toml",
    "eval nowhere --data valid.txt",
    "eval run --data none.txt",
    "bench nowhere",
    "generate run --exit-layer 5",
    "generate run --threads 0",
    "inspect nowhere",
    "quantize nowhere --to int8 --out OUT",
    "sweep nowhere",
    "verify nowhere",
    "card nowhere",
    "serve nowhere",
];

/// The result of a run: its exit code and the output of its streams.
struct Left {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs it with its streams in these states.
fn run(place: &Place, words: &str, streams: [Stream; 2]) -> Left {
    let words: Vec<&str> = words.split_whitespace().collect();
    let own = place.command(&words);
    let descriptors = ["1", "2"].into_iter().zip(streams);
    let redirections = descriptors.map(|(number, stream)| match stream {
        Full => format!("{number}>/dev/full"),
        Closed => format!("{number}>&-"),
        Alive | Broken => String::new(),
    });
    let line = format!("exec \"$0\" \"$@\" {}", redirections.collect::<Vec<_>>().join(" "));
    let mut command = Command::new("sh");
    command.args(["-c", &line]).arg(own.get_program()).args(own.get_args());
    command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?))));
    place.write("said.txt", "Hello\n");
    command.current_dir(place.path("")).stdin(fs::File::open(place.path("said.txt")).unwrap());
    command.env_remove("OFFRAMP_KERNELS").env_remove("RUST_BACKTRACE");
    let names = ["stdout", "stderr"];
    let [stdout, stderr] = [0, 1].map(|index| match streams[index] {
        Broken => Stdio::from(std::io::pipe().unwrap().1), // the reading end is closed
        _ => Stdio::from(fs::File::create(place.path(names[index])).unwrap()),
    });
    let mut child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
    drop(command); // it holds the streams too
    let status = ended(&mut child);
    let [stdout, stderr] = names.map(|name| String::from_utf8(place.read(name)).unwrap());
    Left { code: status.code().unwrap_or_else(|| panic!("{words:?}, {streams:?}: {status}")), stdout, stderr }
}

/// The expected exit code for this stdout, if the command writes a result and otherwise has `code`.
fn expected(code: i32, stdout: Stream) -> i32 {
    match stdout {
        Full if code == 0 => 1,
        Broken if code == 0 => 141,
        _ => code,
    }
}

#[track_caller]
fn assert_rule(place: &Place, words: &str, states: &[[Stream; 2]]) {
    let name = words.replace([' ', '.', '/'], "-");
    let named = |number: usize| words.replace("OUT", &format!("{name}-{number}"));
    let alive = run(place, &named(0), [Alive, Alive]);
    assert!(alive.code == 2 || !alive.stdout.is_empty(), "{words} has a result");
    for (index, &streams) in states.iter().enumerate() {
        let left = run(place, &named(index + 1), streams);
        let context = format!("{words}, {streams:?}: {}", left.stderr);
        assert_eq!(left.code, expected(alive.code, streams[0]), "{context}");
        assert!(
            !left.stderr.contains("panicked") && !left.stderr.contains("a fault in offramp"),
            "{context}"
        );
        if streams[0] == Alive {
            assert_eq!(
                left.stdout.lines().count(),
                alive.stdout.lines().count(),
                "{context}: {}",
                left.stdout
            );
        }
        let last = left.stderr.lines().last().unwrap_or_default();
        match streams {
            [Full, Alive] if alive.code == 0 => {
                assert!(last.starts_with("error: cannot write to stdout"), "{context}")
            }
            [Broken, Alive] if alive.code == 0 => {
                assert_eq!(last, "stopped: the reader of stdout has gone", "{context}");
            }
            [_, Alive] if alive.code == 2 => {
                assert_eq!(left.stderr.replace(&named(index + 1), &named(0)), alive.stderr, "{context}");
            }
            _ => (),
        }
        for file in ["corpus.json", "model/model.safetensors", "model.safetensors"] {
            let [before, now] = [0, index + 1].map(|number| format!("{name}-{number}/{file}"));
            if place.path(&before).exists() && alive.code == 0 {
                assert!(place.read(&before) == place.read(&now), "{file}, {context}");
            }
        }
    }
}

/// The names listed under "Commands:".
fn commands(place: &Place) -> BTreeSet<String> {
    let help = place.good(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // A continuation line is indented further.
    let first = |line: &str| Some(line.strip_prefix("  ")?.split(' ').next()?.to_owned());
    let names = lines.take_while(|line| !line.is_empty()).filter_map(first);
    names.filter(|name| !name.is_empty() && name != "help").collect()
}

#[test]
fn whatever_works_follows_the_rule() {
    let place = Place::trained();
    place.write("run/model/chat_template.jinja", "{{ messages[-1].content }}");
    for words in WORK {
        let is_slow = words.starts_with("demo") || words.starts_with("bench");
        assert_rule(&place, words, if is_slow { &SOME[..] } else { &ALL });
    }
    let first = |words: &&str| words.split_whitespace().next().unwrap().to_owned();
    let tried: BTreeSet<String> = WORK.iter().map(first).collect();
    for command in commands(&place) {
        // A server has no result, and ends when it is told: serve.rs beside this file. These two need a hub:
        // hub.rs.
        let elsewhere = ["serve", "pull", "remove"].contains(&&*command);
        assert!(tried.contains(&command) || elsewhere, "{command} is tried");
        assert_rule(&place, &format!("{command} --help"), &ALL);
    }
}

#[test]
fn mistakes_have_their_exit_code_though_nobody_reads_them() {
    let place = Place::trained();
    for words in MISTAKES {
        assert_rule(&place, words, &ALL);
        assert_eq!(run(&place, &words.replace("OUT", "other"), [Alive, Alive]).code, 2, "{words}");
    }
}
