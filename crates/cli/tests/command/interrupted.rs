//! Training runs that are stopped or killed: the files on disk are complete, and resuming ends in the same
//! model.

use crate::place::{Place, Ran};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough to be stopped midway.
const STEPS: &str = "steps = 600";

/// Starts the run and waits until its journal has so many steps.
fn caught_at(place: &Place, steps: usize) -> Child {
    let mut command = place.command(&["train", "long.toml", "--out", "run"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    let journal = place.path("run/journal.jsonl");
    let made = || std::fs::read_to_string(&journal).unwrap_or_default().matches("\"kind\":\"step\"").count();
    while made() < steps {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it was caught");
        assert!(began.elapsed() < Duration::from_secs(60), "no step in a minute");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn assert_resumes_to_the_same_model(place: &Place) {
    place.good(&["inspect", "run"]);
    place.good(&["train", "long.toml", "--out", "run", "--resume"]);
    place.good(&["train", "long.toml", "--out", "whole"]);
    for file in ["model/model.safetensors", "model/config.json", "recipe.toml"] {
        assert!(place.read(&format!("run/{file}")) == place.read(&format!("whole/{file}")), "{file}");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_stops() {
    let place = Place::new();
    place.recipe("long.toml", "steps = 30", STEPS);
    let child = caught_at(&place, 13);
    signal(&child, "-INT");
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, 130, "{}", ran.stderr);
    assert!(ran.stderr.contains("offramp train long.toml --out run --resume"), "{}", ran.stderr);
    assert!(!place.path("run/model").exists());
    assert_resumes_to_the_same_model(&place);
}

#[cfg(unix)]
#[test]
fn a_killed_run_resumes_from_its_last_checkpoint() {
    let place = Place::new();
    place.recipe("long.toml", "steps = 30", STEPS);
    let mut child = caught_at(&place, 25);
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert_resumes_to_the_same_model(&place);
}
