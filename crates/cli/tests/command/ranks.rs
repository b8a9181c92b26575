//! Training in several processes that MPI connects. `crates/ranks/test` installs one and runs these; without
//! `OFFRAMP_MPIRUN`, a launcher with its options, they are skipped with a line.

#[path = "ranks/prepare.rs"]
mod prepare;

use crate::place::{Place, Ran};
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The launcher and its options, if there is one.
fn mpirun() -> Option<Vec<String>> {
    let named = std::env::var("OFFRAMP_MPIRUN").unwrap_or_default();
    let words: Vec<_> = named.split_whitespace().map(str::to_owned).collect();
    if words.is_empty() {
        eprintln!("skipped: OFFRAMP_MPIRUN names no mpirun (crates/ranks/test installs one)");
        return None;
    }
    Some(words)
}

/// A place whose recipe shares a step among up to four processes.
fn place() -> Place {
    let place = Place::new();
    with_steps(&place, "recipe.toml", 30);
    place
}

/// The recipe for so many steps of four micro-batches.
fn with_steps(place: &Place, name: &str, steps: usize) {
    place.recipe(
        name,
        "steps = 30\nbatch_size = 2\naccumulation = 1",
        &format!("steps = {steps}\nbatch_size = 2\naccumulation = 4"),
    );
}

/// `offramp train` in so many processes.
fn command(place: &Place, mpirun: &[String], count: usize, arguments: &[&str]) -> Command {
    offramp(place, mpirun, count, &[&["train"], arguments].concat())
}

/// A command in so many processes.
fn offramp(place: &Place, mpirun: &[String], count: usize, words: &[&str]) -> Command {
    let mut command = Command::new(&mpirun[0]);
    command
        .args(&mpirun[1..])
        .args(["-n", &count.to_string()])
        .arg(env!("CARGO_BIN_EXE_offramp"))
        .args(words);
    command.current_dir(place.path("")).stdin(Stdio::null()).env_remove("OFFRAMP_KERNELS");
    command.env("HF_HUB_OFFLINE", "1");
    command
}

fn train(place: &Place, mpirun: &[String], count: usize, arguments: &[&str]) -> Ran {
    Ran::of(command(place, mpirun, count, arguments).output().unwrap())
}

/// The files of a finished run of so many steps that have no clock in them.
fn files(place: &Place, run: &str, steps: usize) -> BTreeMap<String, Vec<u8>> {
    let folders = ["model".to_owned(), format!("step-{steps:06}")];
    let names = folders.iter().flat_map(|folder| {
        let entries = fs::read_dir(place.path(run).join(folder)).unwrap();
        entries.map(move |entry| format!("{folder}/{}", entry.unwrap().file_name().display()))
    });
    names.map(|name| (name.clone(), place.read(&format!("{run}/{name}")))).collect()
}

#[test]
fn processes_give_the_bytes_of_one() {
    let (Some(mpirun), place) = (mpirun(), place()) else { return };
    place.good(&["train", "recipe.toml", "--out", "one"]);
    for count in [1, 2, 4] {
        let run = format!("of-{count}");
        let ran = train(&place, &mpirun, count, &["recipe.toml", "--out", &run, "--bucket-cap-mb", "0.01"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(files(&place, &run, 30) == files(&place, "one", 30), "{count} processes");
        let finished = ran.stderr.lines().filter(|line| line.contains("30 steps in")).count();
        assert_eq!(finished, 1, "one of them speaks: {}", ran.stderr);
    }
}

/// What changes the arithmetic of a step.
const KINDS: [(&str, &str, &str); 9] = [
    ("none", "", "[early_exit]\ncurriculum = \"none\"\n"),
    ("rotational", "", "[early_exit]\ncurriculum = \"rotational\"\nperiod = 2\n"),
    ("gradual", "", "[early_exit]\ncurriculum = \"gradual\"\n[layer_dropout]\ntime = \"increasing\"\n"),
    ("sampled", "", "[early_exit]\ncurriculum = \"sampled\"\nsample_fraction = 0.5\n"),
    ("dropout", "", "[layer_dropout]\np_max = 0.5\nrescale = true\n"),
    ("heads", "", "[early_exit]\nown_heads = true\n"),
    ("muon", "", "[optimizer]\nmatrices = \"muon\"\nclip = 0.01\n"),
    ("bf16", "precision = \"bf16\"\n", ""),
    ("ternary", "", ""),
];

#[test]
fn every_kind_of_step_has_the_bytes_of_one_process() {
    let (Some(mpirun), place) = (mpirun(), place()) else { return };
    for (kind, training, sections) in KINDS {
        for (micro_batches, counts) in [(4, &[2, 4][..]), (3, &[3][..])] {
            let steps = format!("steps = 6\nbatch_size = 2\naccumulation = {micro_batches}\n{training}");
            place.recipe("kind.toml", "steps = 30\nbatch_size = 2\naccumulation = 1\n", &steps);
            let mut text = fs::read_to_string(place.path("kind.toml")).unwrap();
            if kind == "ternary" {
                text = text.replace("[model]\n", "[model]\nbit_linear = \"bitskip-v1\"\n");
            }
            place.write("kind.toml", text + "\n" + sections);
            let run = |count: usize| format!("{kind}-{micro_batches}-{count}");
            place.good(&["train", "kind.toml", "--out", &run(1)]);
            for &count in counts {
                let arguments = ["kind.toml", "--out", &run(count), "--bucket-cap-mb", "0.02"];
                let ran = train(&place, &mpirun, count, &arguments);
                assert_eq!(ran.code, 0, "{kind}: {}", ran.stderr);
                assert!(
                    files(&place, &run(count), 6) == files(&place, &run(1), 6),
                    "{kind}, {count} processes"
                );
            }
        }
    }
}

/// Steps in the journal of a run.
fn steps(place: &Place, run: &str) -> usize {
    let text = fs::read_to_string(place.path(run).join("journal.jsonl")).unwrap_or_default();
    text.matches("\"step\"").count()
}

/// Waits until a run has made so many steps, or has ended.
fn wait_for_steps(child: &mut Child, place: &Place, run: &str, count: usize) {
    while steps(place, run) < count && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The process of one rank of a run, as the launcher's variables tell.
fn process_of(run: &str, rank: usize) -> Option<String> {
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers = processes.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
    numbers.find(|number| {
        let read = |file: &str| fs::read(format!("/proc/{number}/{file}")).unwrap_or_default();
        let has =
            |bytes: &[u8], word: &str| bytes.split(|&byte| byte == 0).any(|part| part == word.as_bytes());
        let (words, environment) = (read("cmdline"), read("environ"));
        let is_rank = |name: &&str| has(&environment, &format!("{name}={rank}"));
        words.starts_with(env!("CARGO_BIN_EXE_offramp").as_bytes())
            && has(&words, run)
            && ["PMI_RANK", "OMPI_COMM_WORLD_RANK"].iter().any(is_rank)
    })
}

fn signal(name: &str, process: &str) {
    let _ = Command::new("kill").args([&format!("-{name}"), process]).status();
}

/// A run's processes, one of which dies at a random step, again and again, each time in another number.
#[test]
fn any_rank_may_die_at_any_step_and_the_run_goes_on_with_any_number() {
    let (Some(mpirun), place) = (mpirun(), place()) else { return };
    let deaths = std::env::var("OFFRAMP_DEATHS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let all = 40 * deaths;
    with_steps(&place, "long.toml", all);
    place.good(&["train", "long.toml", "--out", "one"]);
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |end: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % end).unwrap()
    };
    let resume = |place: &Place| -> &[&str] {
        // What was not yet begun begins again.
        if place.path("died/recipe.toml").exists() { &["--resume"] } else { &[] }
    };
    let mut killed = 0;
    for death in 0..deaths {
        let count = [2, 4, 1][death % 3];
        let arguments = [&["long.toml", "--out", "died"], resume(&place)].concat();
        let mut command = command(&place, &mpirun, count, &arguments);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = steps(&place, "died");
        wait_for_steps(&mut child, &place, "died", begun + 1 + below(30));
        if let Some(process) = process_of("died", below(count as u64)) {
            signal("KILL", &process);
            killed += 1;
        }
        child.wait().unwrap();
    }
    assert!(killed * 2 > deaths, "{killed} of {deaths} died");
    let ran = train(&place, &mpirun, 4, &[&["long.toml", "--out", "died"], resume(&place)].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(files(&place, "died", all) == files(&place, "one", all), "after {killed} deaths");
}

/// SIGTERM and Ctrl-C reach the launcher. The checkpoint is written in time, or the last one stands. What is
/// left to do takes longer than a launcher needs to pass a signal on.
#[test]
fn a_launcher_that_is_told_to_end_leaves_a_run_that_goes_on() {
    let (Some(mpirun), place) = (mpirun(), place()) else { return };
    let all = 400;
    with_steps(&place, "long.toml", all);
    place.good(&["train", "long.toml", "--out", "one"]);
    for (name, count, then) in [("TERM", 2, 1), ("INT", 4, 2)] {
        let mut command = command(&place, &mpirun, count, &["long.toml", "--out", name]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_for_steps(&mut child, &place, name, 14);
        signal(name, &child.id().to_string());
        child.wait().unwrap();
        assert!(!place.path(name).join("model").exists(), "it ended before its end");
        let ran = train(&place, &mpirun, then, &["long.toml", "--out", name, "--resume"]);
        assert_eq!(ran.code, 0, "{name}: {}", ran.stderr);
        assert!(
            files(&place, name, all) == files(&place, "one", all),
            "{name}, {count} and then {then} processes"
        );
    }
}

#[test]
fn processes_that_differ_or_fail_end_with_one_line() {
    let (Some(mpirun), place) = (mpirun(), place()) else { return };
    with_steps(&place, "other.toml", 31);
    let both = |other: &str| {
        let binary = env!("CARGO_BIN_EXE_offramp");
        let mut command = command(&place, &mpirun, 1, &["recipe.toml", "--out", "run"]);
        let output = command.args([":", "-n", "1", binary, "train", other, "--out", "run"]).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{text}");
        let lines: Vec<String> =
            text.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].clone()
    };
    let line = both("other.toml");
    assert!(line.starts_with("error: rank 0 of 2") && line.contains("different recipes"), "{line}");
    let line = both("absent.toml");
    assert!(line.starts_with("error: rank 1 of 2") && line.contains("absent.toml"), "{line}");
    assert!(!place.path("run").exists());
    let ran = train(&place, &mpirun, 3, &["recipe.toml", "--out", "run"]);
    assert!(
        ran.stderr.contains("training.accumulation is 4, which 3 processes cannot share"),
        "{}",
        ran.stderr
    );
}

/// A run in which something falls silent after its first step says so. Then `mend` lets the launcher end.
fn ends_with_a_line(mpirun: &[String], silence: impl FnOnce(), mend: impl FnOnce()) {
    let place = place();
    with_steps(&place, "recipe.toml", 100_000);
    let arguments = ["recipe.toml", "--out", "silent", "--rank-timeout", "2"];
    let mut command = command(&place, mpirun, 2, &arguments);
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    wait_for_steps(&mut child, &place, "silent", 1);
    assert!(child.try_wait().unwrap().is_none(), "it trains");
    silence();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
    let said = lines.find(|line| line.contains("nothing came from the other processes for 2 s"));
    mend();
    assert!(!child.wait().unwrap().success() && said.is_some_and(|line| line.starts_with("error: rank ")));
}

/// A process that stands still.
#[test]
fn a_rank_that_falls_silent_ends_the_run_with_a_line() {
    let Some(mpirun) = mpirun() else { return };
    let still = || process_of("silent", 1);
    let kill = || still().iter().for_each(|process| signal("KILL", process)); // the launcher may leave it
    ends_with_a_line(&mpirun, || signal("STOP", &still().unwrap()), kill);
}

/// Two hosts whose cable is cut (`crates/ranks/hosts/link.py`, whose process `OFFRAMP_CABLE` names). The
/// launcher cannot reach the other host either, and ends when the cable is mended.
#[test]
fn a_cut_cable_ends_the_run_with_a_line() {
    let (Some(mpirun), Ok(cable)) = (mpirun(), std::env::var("OFFRAMP_CABLE")) else {
        return eprintln!("skipped: OFFRAMP_CABLE names no cable between two hosts");
    };
    let mend = || {
        for rank in 0..2 {
            let ended = || process_of("silent", rank).is_none();
            assert!(
                (0..500).any(|_| ended() || {
                    std::thread::sleep(Duration::from_millis(20));
                    false
                }),
                "rank {rank}"
            );
        }
        signal("USR1", &cable);
    };
    ends_with_a_line(&mpirun, || signal("USR1", &cable), mend);
}

#[cfg(not(feature = "mpi"))]
#[test]
fn a_process_of_several_without_a_library_says_how_to_get_one() {
    let place = place();
    for words in [["train", "recipe.toml", "--out", "run"], ["prepare", "train.txt", "--out", "run"]] {
        let mut command = place.command(&words);
        command.env("PMI_RANK", "0").env("OFFRAMP_MPI", "libnothing.so").env_remove("LD_LIBRARY_PATH");
        let ran = Ran::of(command.output().unwrap());
        ran.assert_error(2, &["PMI_RANK", "libnothing.so", "pip install mpich", "OFFRAMP_MPI"]);
        assert!(!place.path("run").exists());
    }
}

#[test]
fn a_plan_says_what_each_process_needs_and_sends() {
    let place = place();
    let json =
        place.json(&["train", "recipe.toml", "--plan", "--tokens-per-second", "1000", "--bandwidth", "1"]);
    let plans = json["plans"].as_array().unwrap();
    let ranks: Vec<_> = plans.iter().map(|plan| plan["ranks"].as_u64().unwrap()).collect();
    assert_eq!(ranks, [1, 2, 4]);
    assert!(plans[2]["memory"].as_u64() < plans[0]["memory"].as_u64());
    assert_eq!((plans[0]["sent"].as_u64(), json["largest"].as_u64()), (Some(0), Some(4)));
    assert!(place.good(&["train", "recipe.toml", "--plan"]).contains("--tokens-per-second says it"));
    place
        .run(&["train", "recipe.toml", "--plan", "--bandwidth", "0"])
        .assert_error(2, &["--bandwidth", "above 0"]);
}
