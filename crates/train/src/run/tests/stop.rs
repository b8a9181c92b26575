//! Whoever stops a run waits for little: what is saved is saved before a validation, and a validation and a
//! step are given up where they are. A run that goes on from there ends in the same bytes.

use super::best::{folders, recipe_with_a_best};
use super::*;

/// Everything that a run left, but what depends on the clock.
fn left(place: &Place, run: &str) -> (Vec<Record>, Vec<(String, Vec<u8>)>) {
    let mut files = Vec::new();
    let steps = folders(place, run).into_iter().map(|step| format!("step-{step:06}"));
    for folder in steps.chain(["model".to_owned()]) {
        let entries = fs::read_dir(place.path(run).join(&folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.extend(names.map(|name| format!("{folder}/{name}")));
    }
    files.sort();
    let read = |file: String| (file.clone(), place.read(&format!("{run}/{file}")));
    (journal_of(place, run), files.into_iter().map(read).collect())
}

#[track_caller]
fn assert_same(place: &Place, run: &str, when: &str) {
    let (found, whole) = (left(place, run), left(place, "whole"));
    assert_eq!(found.0, whole.0, "{when}");
    let names = |files: &[(String, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&found.1), names(&whole.1), "{when}");
    for ((name, found), (_, whole)) in found.1.iter().zip(&whole.1) {
        assert!(found == whole, "{name}, {when}");
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn resume(place: &Place, recipe: &Recipe, run: &str) -> Summary {
    quietly(&Job { resume: true, ..place.job(recipe, run, &GO) }).unwrap()
}

#[test]
fn where_both_are_due_it_saves_before_it_validates() {
    let (place, recipe) = (Place::new(), recipe_with_a_best());
    let mut events = Vec::new();
    run(&place.job(&recipe, "run", &GO), &mut |event| match event {
        Event::Checkpoint { step, .. } => events.push((step, "saved")),
        Event::Validation { record } => events.push((record.step, "validated")),
        _ => (),
    })
    .unwrap();
    let of = |step: u64| match step % 2 {
        0 => vec![(step, "saved"), (step, "validated")],
        _ => vec![(step, "saved")],
    };
    assert_eq!(events, (1..=20).flat_map(of).collect::<Vec<_>>());
}

/// The folder as it is at each event is what a kill at that moment leaves.
#[test]
fn killed_between_a_checkpoint_and_its_validation_or_judgement_it_ends_the_same() {
    let (place, recipe) = (Place::new(), recipe_with_a_best());
    let mut moments = Vec::new();
    run(&place.job(&recipe, "whole", &GO), &mut |event| {
        let when = match event {
            Event::Checkpoint { step, .. } => format!("saved-{step}"),
            Event::Validation { record } => format!("validated-{}", record.step),
            _ => return,
        };
        copy(&place.path("whole"), &place.path(&when));
        moments.push(when);
    })
    .unwrap();
    assert_eq!(moments.len(), 30);
    for when in &moments {
        // Killed while the best was marked.
        let newest = *folders(&place, when).last().unwrap();
        fs::write(place.path(&format!("{when}/step-{newest:06}/.offramp-x.partial")), "{").unwrap();
        resume(&place, &recipe, when);
        assert_same(&place, when, when);
    }
}

/// A validation that is under way is given up, the last one too: the run has its checkpoint, and validates
/// when it goes on.
#[test]
fn stopped_in_the_middle_of_a_validation_it_ends_the_same() {
    let (place, often) = (Place::new(), recipe_with_a_best());
    let seldom = often.text().replace("every = 1\nkeep", "every = 7\nkeep");
    let seldom = Recipe::from_toml(&seldom, Path::new("r.toml")).unwrap();
    for (name, recipe) in [("often", &often), ("seldom", &seldom)] {
        quietly(&place.job(recipe, "whole", &GO)).unwrap();
        for last in [2, 12, 14, 20] {
            let (stop, folder) = (AtomicBool::new(false), format!("{name}-{last}"));
            let mut observe = |event: Event<'_>| match event {
                // What it hears after it has looked, and before it validates.
                Event::Checkpoint { step, .. } if step == last => stop.store(true, Ordering::Relaxed),
                Event::Step { record, .. } if record.step == last && !saves(recipe, last) => {
                    stop.store(true, Ordering::Relaxed);
                }
                Event::Validation { record } => assert_ne!(record.step, last),
                _ => (),
            };
            let summary = run(&place.job(recipe, &folder, &stop), &mut observe).unwrap();
            assert_eq!((summary.step, summary.stopped), (last, true), "{folder}");
            assert_eq!(summary.model, place.path(&folder).join(format!("step-{last:06}")));
            assert!(Llama::load(&summary.model, &Formats::default()).is_ok());
            assert!(!place.path(&folder).join("model").exists());
            resume(&place, recipe, &folder);
            match saves(recipe, last) {
                true => assert_same(&place, &folder, &folder),
                // The stop's own checkpoint has a line more.
                false => assert_eq!(left(&place, &folder).1, left(&place, "whole").1, "{folder}"),
            }
        }
        fs::remove_dir_all(place.path("whole")).unwrap();
    }
}

fn saves(recipe: &Recipe, step: u64) -> bool {
    step == recipe.training.steps || is_due(step, recipe.checkpoint.every)
}

/// A step of many micro-batches takes long: it is given up, and made again when the run goes on.
#[test]
fn stopped_in_the_middle_of_a_step_it_ends_the_same() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    // The run has looked before this validation: it hears it in the next step.
    let mut observe = |event: Event<'_>| match event {
        Event::Validation { .. } => stop.store(true, Ordering::Relaxed),
        Event::Step { record, .. } => assert!(record.step <= 8, "a step is made after the stop"),
        _ => (),
    };
    let summary = run(&place.job(&recipe, "run", &stop), &mut observe).unwrap();
    assert_eq!((summary.step, summary.stopped), (8, true));
    assert!(place.path("run/step-000008").exists());
    resume(&place, &recipe, "run");
    assert_eq!(left(&place, "run").1, left(&place, "whole").1);
    // Before the first step there is nothing to save.
    let stop = AtomicBool::new(true);
    let summary = quietly(&place.job(&recipe, "never", &stop)).unwrap();
    assert_eq!((summary.step, summary.stopped, folders(&place, "never").len()), (0, true, 0));
    resume(&place, &recipe, "never");
    assert_same(&place, "never", "stopped before the first step");
}
