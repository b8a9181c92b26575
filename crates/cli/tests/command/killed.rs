//! A run that is killed again and again, at any moment, ends with the same bytes as an undisturbed run.

use crate::place::Place;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

const KILLS: u32 = 20;
/// More steps than all kills together let pass.
const STEPS: u64 = 200;

/// Pseudo-random numbers (Vigna's SplitMix64).
struct Random(u64);

impl Random {
    /// A number below `end`.
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Whether a checkpoint is being written or an old one removed.
fn half_made(run: &Path) -> bool {
    names(run).iter().any(|name| name.starts_with(".offramp-step-"))
}

/// The last step among the journal's complete lines.
fn steps_made(run: &Path) -> u64 {
    let text = fs::read_to_string(run.join("journal.jsonl")).unwrap_or_default();
    let lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|record| record["step"].as_u64()).next().unwrap_or_default()
}

/// Starts or resumes the run and kills it; returns whether that was while a checkpoint was written.
fn killed_once(place: &Place, random: &mut Random) -> bool {
    let run = place.path("run");
    let resume = run.join("recipe.toml").exists();
    let arguments = ["train", "long.toml", "--out", "run", "--resume"];
    let mut command = place.command(&arguments[..if resume { 5 } else { 4 }]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (began, before) = (Instant::now(), steps_made(&run));
    // After some steps, in the middle of a checkpoint, or at a random time.
    let (way, enough) = (random.below(3), before + 1 + random.below(10));
    let limit = Duration::from_millis(if way == 2 { random.below(150) } else { 10_000 });
    while began.elapsed() < limit {
        let made = steps_made(&run);
        if made >= enough || way == 1 && made > before && half_made(&run) {
            sleep(Duration::from_micros(random.below(2000)));
            break;
        }
    }
    assert!(child.try_wait().unwrap().is_none(), "it ended before it was killed");
    child.kill().unwrap();
    child.wait().unwrap();
    half_made(&run)
}

/// Every file in the folders of a run, by its path.
fn files(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let folders = names(run).into_iter().filter(|name| run.join(name).is_dir());
    let inside = folders.flat_map(|folder| {
        let path = run.join(&folder);
        names(&path).into_iter().map(move |file| format!("{folder}/{file}"))
    });
    inside.map(|path| (path.clone(), fs::read(run.join(path)).unwrap())).collect()
}

/// The journal without times, and without the number of restarts.
fn journal(run: &Path) -> Vec<Value> {
    let text = fs::read_to_string(run.join("journal.jsonl")).unwrap();
    let records = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let records = records.filter(|record| record["kind"] != "start" && record["kind"] != "finish");
    let timeless = records.map(|mut record| {
        record.as_object_mut().unwrap().remove("tokens_per_second");
        record
    });
    timeless.collect()
}

#[cfg(unix)]
#[test]
fn a_run_killed_twenty_times_ends_in_the_same_bytes() {
    let place = Place::new();
    let often = "every = 6\n[checkpoint]\nevery = 3\nkeep = 1";
    place.recipe("long.toml", "every = 10\n[checkpoint]\nevery = 10", often);
    let text = String::from_utf8(place.read("long.toml")).unwrap();
    place.write("long.toml", text.replace("steps = 30", &format!("steps = {STEPS}")));
    let seed = std::env::var("OFFRAMP_KILLS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    println!("OFFRAMP_KILLS_SEED={seed}"); // shown on failure, to kill at about the same moments again
    let (mut random, mut within) = (Random(seed), 0);
    for _ in 0..KILLS {
        within += u32::from(killed_once(&place, &mut random));
    }
    println!(
        "{within} of {KILLS} kills left half a checkpoint, after {} steps",
        steps_made(&place.path("run"))
    );
    place.good(&["train", "long.toml", "--out", "run", "--resume"]);
    place.good(&["train", "long.toml", "--out", "whole"]);
    let (run, whole) = (files(&place.path("run")), files(&place.path("whole")));
    assert_eq!(run.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
    assert!(run.keys().any(|file| file == "model/model.safetensors"), "{:?}", run.keys());
    let differing = run.iter().filter(|(path, bytes)| whole[*path] != **bytes);
    assert_eq!(differing.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!(journal(&place.path("run")), journal(&place.path("whole")));
}
