//! Training in several processes that MPI connects. `crates/ranks/test` installs one and runs these; without
//! `OFFRAMP_MPIRUN` they are skipped with a line.

use crate::place::{Place, Ran};
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The launcher, if there is one.
fn mpirun() -> Option<String> {
    let named = std::env::var("OFFRAMP_MPIRUN").ok().filter(|name| !name.is_empty());
    if named.is_none() {
        eprintln!("skipped: OFFRAMP_MPIRUN names no mpirun (crates/ranks/test installs one)");
    }
    named
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
fn command(place: &Place, mpirun: &str, count: usize, arguments: &[&str]) -> Command {
    let mut command = Command::new(mpirun);
    command.args(["-n", &count.to_string()]).arg(env!("CARGO_BIN_EXE_offramp")).arg("train").args(arguments);
    command.current_dir(place.path("")).stdin(Stdio::null()).env_remove("OFFRAMP_KERNELS");
    command.env("HF_HUB_OFFLINE", "1");
    command
}

fn train(place: &Place, mpirun: &str, count: usize, arguments: &[&str]) -> Ran {
    Ran::of(command(place, mpirun, count, arguments).output().unwrap())
}

/// The files of a finished run that have no clock in them.
fn files(place: &Place, run: &str) -> BTreeMap<String, Vec<u8>> {
    let folders = ["model", "step-000030"];
    let names = folders.iter().flat_map(|folder| {
        let entries = std::fs::read_dir(place.path(run).join(folder)).unwrap();
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
        let ran = train(&place, &mpirun, count, &["recipe.toml", "--out", &run]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        assert!(files(&place, &run) == files(&place, "one"), "{count} processes");
        let finished = ran.stderr.lines().filter(|line| line.contains("30 steps in")).count();
        assert_eq!(finished, 1, "one of them speaks: {}", ran.stderr);
    }
}

/// Ends a run in the middle: kills its newest process, or tells all to end.
fn interrupt(child: &mut Child, place: &Place, run: &str, how: &str) {
    let journal = place.path(run).join("journal.jsonl");
    let steps = || std::fs::read_to_string(&journal).unwrap_or_default().matches("\"step\"").count();
    while steps() < 14 && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let pattern = format!("train recipe.toml --out {run}");
    let _ = match how {
        "TERM" => Command::new("kill").args(["-TERM", &child.id().to_string()]).status(),
        newest_or_oldest => Command::new("pkill").args(["-KILL", newest_or_oldest, "-f", &pattern]).status(),
    };
}

#[test]
fn a_rank_that_dies_ends_the_others_and_the_run_goes_on_with_any_number() {
    let (Some(mpirun), place) = (mpirun(), place()) else { return };
    place.good(&["train", "recipe.toml", "--out", "one"]);
    for (index, (how, count, then)) in
        [("-n", 2, 4), ("-n", 4, 1), ("TERM", 2, 1), ("TERM", 4, 2), ("-n", 2, 2)].into_iter().enumerate()
    {
        let run = format!("died-{index}");
        let mut child = command(&place, &mpirun, count, &["recipe.toml", "--out", &run])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        interrupt(&mut child, &place, &run, how);
        child.wait().unwrap();
        // What was not yet begun begins again.
        let begun = place.path(&run).join("recipe.toml").exists();
        let resume: &[&str] = if begun { &["--resume"] } else { &[] };
        let ran = train(&place, &mpirun, then, &[&["recipe.toml", "--out", &run], resume].concat());
        assert_eq!(ran.code, 0, "{how} {count} {then}: {}", ran.stderr);
        assert!(files(&place, &run) == files(&place, "one"), "{how}, {count} processes and then {then}");
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

/// A process that stands still, as one behind a cut cable does.
#[test]
fn a_rank_that_falls_silent_ends_the_run_with_a_line() {
    let (Some(mpirun), place) = (mpirun(), place()) else { return };
    with_steps(&place, "recipe.toml", 100_000);
    let arguments = ["recipe.toml", "--out", "silent", "--rank-timeout", "2"];
    let mut child =
        command(&place, &mpirun, 2, &arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let child = child.as_mut().unwrap();
    let journal = place.path("silent").join("journal.jsonl");
    while !std::fs::read_to_string(&journal).unwrap_or_default().contains("\"step\"") {
        assert!(child.try_wait().unwrap().is_none(), "it trains");
        std::thread::sleep(Duration::from_millis(2));
    }
    let stop =
        Command::new("pkill").args(["-STOP", "-n", "-f", "train recipe.toml --out silent"]).status().unwrap();
    assert!(stop.success());
    let mut text = String::new();
    let ended = child.wait().unwrap();
    std::io::Read::read_to_string(child.stderr.as_mut().unwrap(), &mut text).unwrap();
    assert!(!ended.success() && text.contains("nothing came from the other processes for 2 s"), "{text}");
}

#[test]
fn a_process_of_several_without_a_library_says_how_to_get_one() {
    let place = place();
    let mut command = place.command(&["train", "recipe.toml", "--out", "run"]);
    command.env("PMI_RANK", "0").env("OFFRAMP_MPI", "libnothing.so").env_remove("LD_LIBRARY_PATH");
    let ran = Ran::of(command.output().unwrap());
    ran.assert_error(2, &["PMI_RANK", "libnothing.so", "pip install mpich", "OFFRAMP_MPI"]);
    assert!(!place.path("run").exists());
}

#[test]
fn the_first_process_prepares() {
    let place = place();
    let prepare = |rank: &str, out: &str| {
        let words = ["prepare", "train.txt", "--valid", "valid.txt", "--vocab-size", "300", "--out", out];
        let ran = Ran::of(place.command(&words).env("PMI_RANK", rank).output().unwrap());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        place.path(out).exists()
    };
    assert!(prepare("0", "first") && !prepare("1", "second"));
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
