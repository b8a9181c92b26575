//! The best checkpoint stays, whatever is interrupted.

use super::*;

/// Validated after every second step, saved after every one, and learning ever faster until it unlearns: the
/// best is neither the first nor the last.
pub(super) fn recipe_with_a_best() -> Recipe {
    let text = recipe("").text().replace("learning_rate = 1e-2", "learning_rate = 3.0");
    let text = text.replace("warmup_steps = 3", "warmup_steps = 20");
    let text = text.replace("every = 8", "every = 2").replace("every = 5\nkeep = 2", "every = 1\nkeep = 1");
    Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
}

pub(super) fn folders(place: &Place, run: &str) -> Vec<u64> {
    let steps = offramp_model::checkpoint::steps(&place.path(run)).unwrap();
    steps.into_iter().map(|(step, _)| step).collect()
}

/// The steps after which the full model's loss was lower than ever before.
fn lowest(place: &Place, run: &str) -> Vec<u64> {
    let (mut steps, mut lowest) = (Vec::new(), f64::INFINITY);
    for record in journal_of(place, run) {
        let Record::Validation(record) = record else { continue };
        let loss = record.exits.last().unwrap().loss;
        if loss < lowest {
            steps.push(record.step);
            lowest = loss;
        }
    }
    steps
}

#[test]
fn the_checkpoint_of_the_lowest_validation_loss_stays() {
    let (place, recipe) = (Place::new(), recipe_with_a_best());
    let mut kept = Vec::new();
    run(&place.job(&recipe, "run", &GO), &mut |event| {
        if let Event::Step { record, .. } = event {
            kept.push((record.step, folders(&place, "run")));
        }
    })
    .unwrap();
    let lowest = lowest(&place, "run");
    assert!(lowest.len() > 1 && lowest[lowest.len() - 1] < 20, "a run that tells: {lowest:?}");
    let best_at = |step: u64| lowest.iter().rev().copied().find(|best| *best <= step);
    for (step, found) in kept {
        let before = step - 1; // the event comes before the step is saved
        let mut expected: Vec<u64> =
            best_at(before).into_iter().chain((before > 0).then_some(before)).collect();
        expected.dedup();
        assert_eq!(found, expected, "before step {step} was saved");
    }
    let best = best_at(20).unwrap();
    assert_eq!(folders(&place, "run"), [best, 20]);
    assert!(Llama::load(&place.path(&format!("run/step-{best:06}")), &Formats::default()).is_ok());
    let journal = journal_of(&place, "run");
    let Record::Checkpoint(last) = journal.last().unwrap() else { panic!("{journal:?}") };
    assert_eq!(last.best, Some(format!("step-{best:06}")));
}

/// What is the best is known from the disk alone.
#[test]
fn a_run_that_was_stopped_anywhere_keeps_the_same_best() {
    let (place, recipe) = (Place::new(), recipe_with_a_best());
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    for last in [1, 2, 7, 12, 19] {
        let folder = format!("stopped-{last}");
        let stop = AtomicBool::new(false);
        stopped_after(&place.job(&recipe, &folder, &stop), &stop, last);
        quietly(&Job { resume: true, ..place.job(&recipe, &folder, &GO) }).unwrap();
        assert_eq!(journal_of(&place, &folder), journal_of(&place, "whole"), "stopped after {last}");
        assert_eq!(folders(&place, &folder), folders(&place, "whole"));
        for step in folders(&place, "whole") {
            for file in ["state.json", "model.safetensors", "optimizer.safetensors"] {
                let read = |run: &str| place.read(&format!("{run}/step-{step:06}/{file}"));
                assert!(read(&folder) == read("whole"), "{file} of step {step}, stopped after {last}");
            }
        }
    }
}

/// A stop saves where an uninterrupted run would not: that checkpoint is never the best.
#[test]
fn a_stop_makes_no_best() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 16); // validated, and not one of the recipe's
    quietly(&Job { resume: true, ..place.job(&recipe, "run", &GO) }).unwrap();
    let state = |run: &str| place.read(&format!("{run}/step-000020/state.json"));
    assert!(state("run") == state("whole"));
    assert!(String::from_utf8(state("run")).unwrap().contains("\"step\": 20,\n    \"loss\""));
}

/// Killed after a checkpoint was on disk, and before its line, or the removal of the one before.
#[test]
fn what_a_kill_left_undone_is_done() {
    let (place, recipe) = (Place::new(), recipe_with_a_best());
    quietly(&place.job(&recipe, "run", &GO)).unwrap();
    let (journal, whole) = (journal_of(&place, "run"), folders(&place, "run"));
    let (from, to) = (place.path("run/step-000020"), place.path("run/step-000019"));
    fs::create_dir(&to).unwrap();
    for entry in fs::read_dir(&from).unwrap().map(|entry| entry.unwrap()) {
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
    let text = String::from_utf8(place.read("run/journal.jsonl")).unwrap();
    let line = text.find("{\"kind\":\"checkpoint\",\"step\":20").unwrap();
    fs::write(place.path("run/journal.jsonl"), &text[..line]).unwrap();
    quietly(&Job { resume: true, ..place.job(&recipe, "run", &GO) }).unwrap();
    assert_eq!(journal_of(&place, "run"), journal);
    assert_eq!(folders(&place, "run"), whole);
}
