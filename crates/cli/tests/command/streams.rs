//! Streams that are dead: full, closed, a pipe whose reader has gone, a terminal that has hung up. No command
//! hangs or panics, and the rule of the exit codes is this:
//!
//! - stdout has the result. Where it is full the exit code is 1, and a line on stderr says so; where its reader has
//!   gone it is 141. Closed it is as good as `/dev/null`: nobody has asked for the result.
//! - stderr is for whoever looks. Dead, it changes neither the result nor the exit code.

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
/// For what takes seconds.
const SOME: [[Stream; 2]; 2] = [[Broken, Full], [Full, Closed]];

/// What works: each command, small. `OUT` becomes another name in each run.
const WORK: &[&str] = &[
    "chat run --max-new-tokens 4",
    "prepare train.txt --valid valid.txt --vocab-size 300 --out OUT",
    "train recipe.toml --out OUT",
    "train recipe.toml --out OUT --profile --json",
    "train recipe.toml --out run --plot",
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
    "--help",
    "--version",
    "help train",
];

/// What does not, in each way: no command, none of this name, no such argument, no such file, a bad value.
const MISTAKES: &[&str] = &[
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
];

/// What a run left: its exit code and what was read of its streams.
struct Left {
    code: i32,
    stdout: String,
    stderr: String,
}

/// Runs it with its streams in such a state.
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
    place.write("said.txt", "Hello\n");
    command.current_dir(place.path("")).stdin(fs::File::open(place.path("said.txt")).unwrap());
    command.env_remove("OFFRAMP_KERNELS").env_remove("RUST_BACKTRACE");
    let names = ["stdout", "stderr"];
    let [stdout, stderr] = [0, 1].map(|index| match streams[index] {
        Broken => Stdio::from(std::io::pipe().unwrap().1), // and nobody has the other end
        _ => Stdio::from(fs::File::create(place.path(names[index])).unwrap()),
    });
    let mut child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
    drop(command); // it holds the streams too
    let status = ended(&mut child);
    let [stdout, stderr] = names.map(|name| String::from_utf8(place.read(name)).unwrap());
    Left { code: status.code().unwrap_or_else(|| panic!("{words:?}, {streams:?}: {status}")), stdout, stderr }
}

/// The exit code with such an stdout of what writes a result and has `code` otherwise.
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

/// The names under "Commands:".
fn commands(place: &Place) -> BTreeSet<String> {
    let help = place.good(&["--help"]);
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    // What a line before has no room for stands further in.
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
        assert!(tried.contains(&command), "{command} is tried");
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
