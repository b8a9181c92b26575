//! Runs on a tiny corpus: whole, stopped, resumed, refused.

mod adapters;
mod averages;
mod best;
mod damage;
mod ranks;
mod resume;
mod start;
mod stop;
mod threads;
mod validation;

use super::*;
use crate::recipe::Recipe;
use offramp_model::journal;
use offramp_model::{Formats, Llama};
use offramp_text::{PrepareOptions, Tokenizer, TokenizerChoice, prepare};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tempfile::TempDir;

/// A folder with a prepared corpus in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        place.prepare("corpus", 0);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn prepare(&self, name: &str, variant: usize) {
        let story = |i: usize| format!("The cat number {i} saw {} birds and sang.", (i * i + variant) % 37);
        let text = |count: usize| (0..count).map(story).collect::<Vec<_>>().join("\n<|endoftext|>\n");
        let (train, valid) = (self.path("train.txt"), self.path("valid.txt"));
        fs::write(&train, text(120)).unwrap();
        fs::write(&valid, text(9)).unwrap();
        let tokenizer = TokenizerChoice::Train { vocab_size: 280 };
        let options = PrepareOptions {
            train: vec![train],
            valid: vec![valid],
            reading: Default::default(),
            out: self.path(name),
            tokenizer,
            shard_tokens: 1 << 20,
        };
        prepare(&options, &mut |_| ()).unwrap();
    }

    fn job<'a>(&self, recipe: &'a Recipe, folder: &str, stop: &'a AtomicBool) -> Job<'a> {
        Job {
            recipe,
            corpus: self.path("corpus"),
            folder: self.path(folder),
            resume: false,
            best: false,
            stop,
        }
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }
}

static GO: AtomicBool = AtomicBool::new(false);

fn recipe(keys: &str) -> Recipe {
    let text = format!(
        "[data]\ncorpus = \"corpus\"\n[model]\nhidden_size = 16\nintermediate_size = 24\nnum_hidden_layers = 4\n\
         num_attention_heads = 4\nnum_key_value_heads = 2\n[training]\nsteps = 20\nbatch_size = 3\naccumulation = 2\n\
         sequence_length = 24\nseed = 9\n[optimizer]\nlearning_rate = 1e-2\n[schedule]\nwarmup_steps = 3\n[validation]\nevery = 8\n\
         [checkpoint]\nevery = 5\nkeep = 2\n{keys}"
    );
    Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
}

/// The same with another optimizer of the layers' matrices.
fn moved_by(matrices: &str, text: &str) -> Recipe {
    let text = text.replace("[optimizer]", &format!("[optimizer]\nmatrices = \"{matrices}\""));
    Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
}

fn quietly(job: &Job<'_>) -> Result<Summary> {
    run(job, &mut |_| ())
}

/// Stops after step `last`.
fn stopped_after(job: &Job<'_>, stop: &AtomicBool, last: u64) -> Summary {
    let mut observe = |event: Event<'_>| {
        if matches!(event, Event::Step { record, .. } if record.step == last) {
            stop.store(true, Ordering::Relaxed);
        }
    };
    run(job, &mut observe).unwrap()
}

/// The journal without what depends on the clock.
fn journal_of(place: &Place, folder: &str) -> Vec<Record> {
    let records = journal::read(&place.path(folder).join("journal.jsonl")).unwrap();
    let timeless = records.into_iter().filter_map(|record| match record {
        Record::Step(step) => Some(Record::Step(StepRecord { tokens_per_second: 0.0, ..step })),
        Record::Start(_) | Record::Finish(_) => None,
        other => Some(other),
    });
    timeless.collect()
}

#[test]
fn a_run_learns_and_leaves_what_it_promises() {
    let (place, recipe) = (Place::new(), recipe(""));
    let mut events = Vec::new();
    let job = place.job(&recipe, "run", &GO);
    let summary = run(&job, &mut |event| events.push(format!("{event:?}"))).unwrap();
    assert_eq!((summary.step, summary.stopped, summary.skipped), (20, false, 0));
    assert!(
        events[0].starts_with("Started { step: 0, steps: 20,") && events[0].contains("tokens_per_step: 144")
    );

    let records = journal_of(&place, "run");
    let losses: Vec<f64> = records
        .iter()
        .filter_map(|record| if let Record::Step(step) = record { Some(step.final_loss) } else { None })
        .collect();
    assert!(losses.len() == 20 && losses[19] < losses[0] - 0.3, "{losses:?}");
    assert!((losses[0] - (280f64).ln()).abs() < 0.3, "at first every token is as likely: {}", losses[0]);
    let validations: Vec<u64> =
        records.iter().filter(|r| matches!(r, Record::Validation(_))).map(Record::step).collect();
    assert_eq!(validations, [8, 16, 20]);
    let validation = summary.validation.unwrap();
    assert_eq!(validation.exits.iter().map(|e| e.exit_layer).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert!(validation.bits_per_byte > 0.5 && validation.bits_per_byte < 8.0, "{validation:?}");

    assert!(!place.path("run/step-000010").exists(), "only the newest two are kept");
    for folder in ["run/step-000015", "run/step-000020", "run/model"] {
        let model = Llama::load(&place.path(folder), &Formats::default()).unwrap();
        let block = model.config().early_exit.clone().unwrap();
        assert_eq!((block.curriculum.as_str(), block.layer_dropout.as_str()), ("all", "quadratic"));
        assert!((block.layer_dropout_max - 0.8).abs() < 1e-12);
        let tokenizer = Tokenizer::from_folder(&place.path(folder)).unwrap();
        assert_eq!(model.config().eos_token_ids, [tokenizer.end_of_text().unwrap()]);
        let context = model.config().max_position_embeddings;
        let how = place.read(&format!("{folder}/tokenizer_config.json"));
        assert_eq!(how, tokenizer.transformers_json(context).as_bytes());
    }
    assert_eq!(place.read("run/recipe.toml"), recipe.text().as_bytes());
    assert_eq!(summary.model, place.path("run/model"));
}

#[test]
fn ten_steps_and_ten_more_are_twenty() {
    let place = Place::new();
    let dropout = "[layer_dropout]\nnormalize = \"none\"\ntime = \"increasing\"\nrescale = true";
    let own_heads = "[early_exit]\nown_heads = true";
    let averages = "[averages]\nema_decay = 0.9\nswa_start = 7\nswa_every = 4";
    for (matrices, keys) in
        [("adamw", ""), ("adamw", dropout), ("muon", ""), ("adamw", own_heads), ("adamw", averages)]
    {
        let recipe = moved_by(matrices, recipe(keys).text());
        let [whole, halves] = ["whole", "halves"].map(|name| format!("{name}-{matrices}-{}", keys.len()));
        quietly(&place.job(&recipe, &whole, &GO)).unwrap();
        let stop = AtomicBool::new(false);
        let summary = stopped_after(&place.job(&recipe, &halves, &stop), &stop, 10);
        assert_eq!((summary.step, summary.stopped), (10, true));
        assert_eq!(summary.model, place.path(&halves).join("step-000010"));
        let job = Job { resume: true, ..place.job(&recipe, &halves, &GO) };
        assert_eq!(quietly(&job).unwrap().step, 20);
        for file in [
            "step-000020/model.safetensors",
            "step-000020/optimizer.safetensors",
            "step-000020/state.json",
            "model/model.safetensors",
            "model/config.json",
        ] {
            assert!(
                place.read(&format!("{whole}/{file}")) == place.read(&format!("{halves}/{file}")),
                "{file}"
            );
        }
        // The stop wrote a checkpoint that the whole run did not have to.
        let steps = |folder: &str| {
            let steps = journal_of(&place, folder).into_iter();
            steps.filter(|record| !matches!(record, Record::Checkpoint(_))).collect::<Vec<_>>()
        };
        assert_eq!(steps(&whole), steps(&halves));
    }
}

/// Stopped before the activations' bits change, at the change, and after it, with a second stage on the way.
#[test]
fn a_low_bit_run_resumes_across_its_changes() {
    let place = Place::new();
    let keys = recipe("")
        .text()
        .replace("intermediate_size = 24", "intermediate_size = 32\nbit_linear = \"bitskip-v2\"");
    let keys = keys.replace("[optimizer]", "[optimizer]\nsecond_weight_decay = 0.0");
    let keys =
        keys.replace("[schedule]", "[schedule]\nsecond_stage = 0.5\nsecond_fraction = 0.5\nint4_from = 0.7");
    let recipe = Recipe::from_toml(&keys, Path::new("r.toml")).unwrap();
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let steps: Vec<_> = journal_of(&place, "whole")
        .into_iter()
        .filter_map(|record| match record {
            Record::Step(step) => Some(step),
            _ => None,
        })
        .collect();
    let bits: Vec<_> = steps.iter().map(|step| step.activation_bits.unwrap()).collect();
    assert_eq!(bits, [[8; 14].as_slice(), &[4; 6]].concat());
    assert!(steps.iter().all(|step| step.grad_norm.is_finite()) && steps[19].loss < steps[0].loss);
    for last in [11, 14, 16] {
        let (stop, folder) = (AtomicBool::new(false), format!("halves-{last}"));
        let stopped = stopped_after(&place.job(&recipe, &folder, &stop), &stop, last);
        // What a checkpoint says of itself is what its last step was.
        let config = offramp_model::Config::read(&stopped.model.join("config.json")).unwrap();
        assert_eq!(config.bit_linear.unwrap().name(), if last <= 14 { "bitskip-v3" } else { "bitskip-v2" });
        quietly(&Job { resume: true, ..place.job(&recipe, &folder, &GO) }).unwrap();
        for file in ["step-000020/optimizer.safetensors", "model/model.safetensors", "model/config.json"] {
            let [whole, halves] = ["whole", &folder].map(|run| place.read(&format!("{run}/{file}")));
            assert!(whole == halves, "{file}, stopped after {last}");
        }
    }
    assert!(Llama::load(&place.path("whole/model"), &Formats::default()).is_ok());
}

/// Killed between two checkpoints: what the journal says of later steps is forgotten and happens again.
#[test]
fn a_killed_run_goes_on_from_its_newest_whole_checkpoint() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "killed", &stop), &stop, 13);
    fs::remove_dir_all(place.path("killed/step-000013")).unwrap();
    fs::create_dir(place.path("killed/.offramp-step-000014-1.partial")).unwrap();
    let mut journal = fs::OpenOptions::new().append(true).open(place.path("killed/journal.jsonl")).unwrap();
    std::io::Write::write_all(&mut journal, b"{\"kind\":\"step\",\"st").unwrap();
    quietly(&Job { resume: true, ..place.job(&recipe, "killed", &GO) }).unwrap();
    assert!(place.read("whole/model/model.safetensors") == place.read("killed/model/model.safetensors"));
    assert_eq!(journal_of(&place, "whole"), journal_of(&place, "killed"));
    assert!(!place.path("killed/.offramp-step-000014-1.partial").exists());
}

#[test]
fn a_run_killed_before_its_first_checkpoint_begins_again() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "killed", &stop), &stop, 2);
    fs::remove_dir_all(place.path("killed/step-000002")).unwrap();
    quietly(&Job { resume: true, ..place.job(&recipe, "killed", &GO) }).unwrap();
    assert_eq!(journal_of(&place, "whole"), journal_of(&place, "killed"));
}

#[test]
fn the_seed_is_all_there_is_to_chance() {
    let place = Place::new();
    let (one, other) = (recipe(""), recipe("").text().replace("seed = 9", "seed = 8"));
    quietly(&place.job(&one, "a", &GO)).unwrap();
    quietly(&place.job(&one, "b", &GO)).unwrap();
    quietly(&place.job(&Recipe::from_toml(&other, Path::new("r.toml")).unwrap(), "c", &GO)).unwrap();
    assert_eq!(journal_of(&place, "a"), journal_of(&place, "b"));
    assert_ne!(journal_of(&place, "a"), journal_of(&place, "c"));
}

#[test]
fn a_finished_run_has_nothing_left_to_do() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "run", &GO)).unwrap();
    let before = place.read("run/model/model.safetensors");
    let summary = quietly(&Job { resume: true, ..place.job(&recipe, "run", &GO) }).unwrap();
    assert_eq!((summary.step, summary.stopped, summary.last_step.is_none()), (20, false, true));
    assert_eq!(before, place.read("run/model/model.safetensors"));
}

#[track_caller]
fn assert_refused(job: &Job<'_>, expected: &[&str]) {
    let message = quietly(job).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    for part in expected {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
}

#[test]
fn what_must_not_go_on_is_refused_with_a_reason() {
    let (place, recipe) = (Place::new(), recipe(""));
    let resumed = |recipe| Job { resume: true, ..place.job(recipe, "run", &GO) };
    assert_refused(&resumed(&recipe), &["no run in", "without --resume"]);
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 6);
    assert_refused(&place.job(&recipe, "run", &GO), &["saved at step 6", "--resume", "another folder"]);

    let faster = recipe.text().replace("warmup_steps = 3", "warmup_steps = 2\nfinal_fraction = 0.1");
    let faster = Recipe::from_toml(&faster, Path::new("new.toml")).unwrap();
    assert_refused(&resumed(&faster), &["schedule.warmup_steps is 2 in new.toml", "begun with 3"]);
    let commented =
        format!("# again\n{}", recipe.text().replace("corpus = \"corpus\"", "corpus = \"moved\""));
    let commented = Recipe::from_toml(&commented, Path::new("new.toml")).unwrap();

    place.prepare("corpus", 1);
    assert_refused(&resumed(&recipe), &["the corpus in", "begun with", "prepare the same corpus"]);
    place.prepare("corpus", 0);
    let state = place.read("run/step-000006/state.json");
    fs::write(place.path("run/step-000006/state.json"), &state[..40]).unwrap();
    assert_refused(&resumed(&recipe), &["state.json: ", "step-000006", "from the one before"]);
    fs::write(place.path("run/step-000006/state.json"), state).unwrap();
    assert_eq!(quietly(&resumed(&commented)).unwrap().step, 20);
}

#[test]
fn a_corpus_that_is_too_short_leaves_no_folder_behind() {
    let (place, recipe) = (Place::new(), recipe(""));
    let long = recipe.text().replace("[model]", "[model]\nmax_position_embeddings = 100000");
    let long = long.replace("sequence_length = 24", "sequence_length = 100000");
    let long = Recipe::from_toml(&long, Path::new("r.toml")).unwrap();
    assert_refused(&place.job(&long, "run", &GO), &["100001"]);
    assert!(!place.path("run").exists());
}

/// Something is in the way of the fifth step's checkpoint: the run ends in an error, what was saved stays.
#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_last_one_whole() {
    let (place, recipe) = (Place::new(), recipe(""));
    let mut observe = |event: Event<'_>| {
        if matches!(event, Event::Checkpoint { step: 5, .. }) {
            let name = format!("run/.offramp-step-000010-{}.partial", std::process::id());
            fs::write(place.path(&name), "in the way").unwrap();
        }
    };
    let message = run(&place.job(&recipe, "run", &GO), &mut observe).unwrap_err().to_string();
    assert!(message.starts_with("cannot write") && message.contains("step-000010"), "{message}");
    assert!(Llama::load(&place.path("run/step-000005"), &Formats::default()).is_ok());
    quietly(&Job { resume: true, ..place.job(&recipe, "run", &GO) }).unwrap();
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    assert!(place.read("whole/model/model.safetensors") == place.read("run/model/model.safetensors"));
}

#[test]
fn a_run_that_diverges_is_stopped() {
    let place = Place::new();
    // Weights that grow by 10^12 a step are infinite soon.
    let wild = recipe("").text().replace("learning_rate = 1e-2", "learning_rate = 10.0\nweight_decay = 10.0");
    let wild = wild.replace("steps = 20", "steps = 200").replace("warmup_steps = 3", "warmup_steps = 0");
    let wild = wild.replace("[model]", "[model]\nrms_norm_eps = 0.0");
    let wild = Recipe::from_toml(&wild, Path::new("r.toml")).unwrap();
    let mut skipped = 0;
    let job = place.job(&wild, "run", &GO);
    let error = run(&job, &mut |event| {
        if let Event::Step { skipped: all, .. } = event {
            skipped = all
        }
    })
    .unwrap_err();
    assert!(error.to_string().contains("not finite in 10 steps in a row"), "{error}");
    assert_eq!(skipped, 10);
}
