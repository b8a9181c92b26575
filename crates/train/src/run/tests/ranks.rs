//! A run over several ranks is the same run. Here ranks are threads; the command's tests have processes.

use super::*;
use offramp_ranks::threads;
use std::collections::BTreeMap;
use std::thread;

/// Runs a job on so many ranks, and returns what the first says. An error of one ends all.
pub(super) fn on_ranks(job: &Job<'_>, size: usize) -> Result<Summary> {
    each_on_ranks(size, |_| job).remove(0)
}

/// Runs each rank's own job. Another number of ranks has other buckets: a layer each, some layers, all of
/// them.
fn each_on_ranks<'a>(size: usize, job: impl Fn(usize) -> &'a Job<'a>) -> Vec<Result<Summary>> {
    thread::scope(|scope| {
        let spawn = |mut ranks: Ranks| {
            let job = job(ranks.rank());
            scope.spawn(move || run_on(job, &mut ranks, &mut |_| ()))
        };
        let bucket = [1, 60_000, 25 << 20][size % 3];
        let ranks = threads(size).into_iter().map(|ranks| ranks.with_bucket(bucket));
        let spawned: Vec<_> = ranks.map(spawn).collect();
        spawned.into_iter().map(|thread| thread.join().expect("a rank")).collect()
    })
}

/// Every file of a run, but the journal's clock.
fn files(place: &Place, run: &str) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["step-000004", "step-000006", "model"] {
        for entry in fs::read_dir(place.path(run).join(folder)).unwrap().map(|entry| entry.unwrap().path()) {
            let name = format!("{folder}/{}", entry.file_name().unwrap().display());
            files.insert(name, fs::read(&entry).unwrap());
        }
    }
    files.insert("journal".to_owned(), format!("{:?}", journal_of(place, run)).into_bytes());
    files
}

/// Six steps of eight micro-batches, with all that depends on a micro-batch.
fn shared(keys: &str) -> Recipe {
    let text = format!(
        "[data]\ncorpus = \"corpus\"\n[model]\nhidden_size = 32\nintermediate_size = 48\nnum_hidden_layers = 4\n\
         num_attention_heads = 4\nnum_key_value_heads = 2\n[training]\nsteps = 6\nbatch_size = 2\naccumulation = 8\n\
         sequence_length = 16\nseed = 9\n{keys}[schedule]\nwarmup_steps = 2\n[validation]\nevery = 2\n[checkpoint]\nevery = 2\n\
         keep = 2\n"
    );
    Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
}

#[test]
fn one_two_four_and_eight_ranks_give_the_same_bytes() {
    let place = Place::new();
    for (name, keys) in [
        ("adamw", "[optimizer]\nclip = 0.01\n"),
        ("muon", "[optimizer]\nmatrices = \"muon\"\n"),
        ("bf16", "precision = \"bf16\"\n"),
        ("rotational", "[early_exit]\ncurriculum = \"rotational\"\nperiod = 2\n"),
        (
            "gradual",
            "[early_exit]\ncurriculum = \"gradual\"\n[layer_dropout]\ntime = \"increasing\"\nrescale = true\n",
        ),
        ("averages", "[averages]\nema_decay = 0.5\nswa_start = 3\n"),
        ("heads", "[early_exit]\nown_heads = true\n"),
        ("tied", "[early_exit]\ncurriculum = \"rotational\"\nperiod = 2\n"),
        ("sampled", "[early_exit]\ncurriculum = \"sampled\"\nsample_fraction = 0.5\n"),
        ("ternary", ""),
    ] {
        let recipe = match name {
            "ternary" | "tied" => {
                let key =
                    if name == "tied" { "tie_word_embeddings = true" } else { "bit_linear = \"bitskip-v1\"" };
                let text = shared(keys).text().replace("[training]", &format!("{key}\n[training]"));
                Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
            }
            _ => shared(keys),
        };
        let run = |size: usize| {
            let folder = format!("{name}-{size}");
            let summary = on_ranks(&place.job(&recipe, &folder, &GO), size).unwrap();
            assert_eq!((summary.step, summary.model), (6, place.path(&folder).join("model")));
            files(&place, &folder)
        };
        let alone = run(1);
        for size in [2, 4, 8] {
            for (file, bytes) in run(size) {
                assert!(alone[&file] == bytes, "{name}: {file} of {size} ranks");
            }
        }
    }
}

#[test]
fn three_ranks_are_one_where_each_has_a_power_of_two() {
    let place = Place::new();
    let text = shared("").text().replace("accumulation = 8", "accumulation = 6");
    let recipe = Recipe::from_toml(&text, Path::new("r.toml")).unwrap();
    let run = |size: usize| {
        let folder = format!("run-{size}");
        on_ranks(&place.job(&recipe, &folder, &GO), size).unwrap();
        files(&place, &folder)
    };
    assert!(run(3) == run(1));
    let message = on_ranks(&place.job(&recipe, "four", &GO), 4).unwrap_err().to_string();
    for part in ["r.toml", "training.accumulation is 6", "4 processes", "a multiple of 4"] {
        assert!(message.contains(part) && !message.contains('\n'), "{message}");
    }
    assert!(!place.path("four").exists(), "nothing is begun");
}

#[test]
fn a_run_goes_on_with_another_number_of_ranks() {
    let (place, recipe) = (Place::new(), shared("[optimizer]\nmatrices = \"muon\"\n"));
    on_ranks(&place.job(&recipe, "whole", &GO), 1).unwrap();
    let stop = AtomicBool::new(false);
    let job = place.job(&recipe, "parts", &stop);
    thread::scope(|scope| {
        let spawn = |mut ranks: Ranks| {
            let (job, stop) = (&job, &stop);
            // Only one of the processes is told to stop.
            let mut observe = move |event: Event<'_>| {
                if matches!(event, Event::Step { record, .. } if record.step == 3) {
                    stop.store(true, Ordering::Relaxed);
                }
            };
            scope.spawn(move || run_on(job, &mut ranks, &mut observe).unwrap())
        };
        let spawned: Vec<_> = threads(4).into_iter().map(spawn).collect();
        assert!(spawned.into_iter().all(|thread| thread.join().unwrap().stopped), "all of them");
    });
    let resumed = Job { resume: true, ..place.job(&recipe, "parts", &GO) };
    on_ranks(&resumed, 2).unwrap();
    let without_journal = |run: &str| {
        let mut files = files(&place, run);
        files.remove("journal"); // it has the checkpoint of the stop
        files
    };
    assert!(without_journal("parts") == without_journal("whole"));
    let steps = |run: &str| -> Vec<Record> {
        let records = journal_of(&place, run).into_iter();
        records.filter(|record| matches!(record, Record::Step(_) | Record::Validation(_))).collect()
    };
    assert_eq!(steps("parts"), steps("whole"));
}

#[test]
fn ranks_that_differ_are_refused_before_anything_is_written() {
    let place = Place::new();
    let (one, other) = (shared(""), shared("[optimizer]\nlearning_rate = 1e-3\n"));
    let jobs = [place.job(&one, "run", &GO), place.job(&other, "run", &GO)];
    let results = each_on_ranks(2, |rank| &jobs[rank]);
    for result in results {
        let message = result.unwrap_err().to_string();
        assert!(message.contains("rank 1 and rank 0 have different recipes"), "{message}");
    }
    assert!(!place.path("run").exists());
}

#[test]
fn without_exact_ranks_one_process_adds_where_gradients_are_made() {
    let place = Place::new();
    let inexact = shared("exact_ranks = false\n");
    on_ranks(&place.job(&shared(""), "exact", &GO), 1).unwrap();
    on_ranks(&place.job(&inexact, "inexact", &GO), 1).unwrap();
    on_ranks(&place.job(&inexact, "two", &GO), 2).unwrap();
    let weights = |run: &str| place.read(&format!("{run}/model/model.safetensors"));
    assert_ne!(weights("exact"), weights("inexact"), "another order of the same sum");
    assert_ne!(weights("two"), weights("inexact"));
    let loss = |run: &str| match journal_of(&place, run).into_iter().rev().find_map(|record| match record {
        Record::Step(step) => Some(step.final_loss),
        _ => None,
    }) {
        Some(loss) => loss,
        None => panic!("no step in {run}"),
    };
    assert!((loss("exact") - loss("two")).abs() < 1e-4 * loss("exact"), "{} {}", loss("exact"), loss("two"));
}
