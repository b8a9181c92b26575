//! `bf16` trains as `f32` does, and what must not be rounded is not.

use offramp_model::journal::{self, Record};
use offramp_tests::corpus::{Corpus, small_recipe};
use offramp_train::{Job, run};
use std::sync::atomic::AtomicBool;

/// Losses of a run, in its steps' order.
fn losses(corpus: &Corpus, precision: &str) -> Vec<f64> {
    let recipe = small_recipe(precision, 300, "[early_exit]\ncurriculum = \"all\"");
    let (folder, stop) = (corpus.path(precision), AtomicBool::new(false));
    let job = Job {
        recipe: &recipe,
        corpus: corpus.path("corpus"),
        folder: folder.clone(),
        resume: false,
        best: false,
        stop: &stop,
    };
    run(&job, &mut |_| ()).expect("a run");
    let records = journal::read(&folder.join("journal.jsonl")).expect("a journal");
    let loss = |record: Record| if let Record::Step(step) = record { Some(step.loss) } else { None };
    records.into_iter().filter_map(loss).collect()
}

#[test]
fn after_300_steps_the_smoothed_loss_is_that_of_f32() {
    let corpus = Corpus::new();
    let [whole, rounded] = ["f32", "bf16"].map(|precision| losses(&corpus, precision));
    assert_ne!(whole, rounded, "products are rounded");
    let smoothed = |losses: &[f64]| losses.iter().fold(losses[0], |smooth, loss| 0.95 * smooth + 0.05 * loss);
    let (whole, rounded) = (smoothed(&whole), smoothed(&rounded));
    assert!(whole < 4.5, "it learns: {whole}");
    assert!((rounded / whole - 1.0).abs() < 0.01, "{rounded} instead of {whole}");
}
