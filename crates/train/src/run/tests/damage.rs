//! Run folders that something has happened to.

use super::*;

fn resumed<'a>(place: &Place, recipe: &'a Recipe, folder: &str) -> Job<'a> {
    Job { resume: true, ..place.job(recipe, folder, &GO) }
}

/// Whatever of the newest checkpoint is missing or torn: the answer names it, and says how to go on from the
/// one before; going on from there ends as a run does that nothing happened to.
#[test]
fn a_damaged_checkpoint_is_named_and_the_one_before_is_enough() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 8);
    for file in ["state.json", "optimizer.safetensors", "model.safetensors"] {
        let path = format!("run/step-000008/{file}");
        let whole = place.read(&path);
        let say = ["step-000008", file, "remove", "from the one before"];
        fs::write(place.path(&path), &whole[..whole.len() / 2]).unwrap();
        assert_refused(&resumed(&place, &recipe, "run"), &say);
        fs::remove_file(place.path(&path)).unwrap();
        assert_refused(&resumed(&place, &recipe, "run"), &say);
        fs::write(place.path(&path), whole).unwrap();
    }
    fs::remove_dir_all(place.path("run/step-000008")).unwrap();
    quietly(&resumed(&place, &recipe, "run")).unwrap();
    assert!(place.read("whole/model/model.safetensors") == place.read("run/model/model.safetensors"));
    assert_eq!(journal_of(&place, "whole"), journal_of(&place, "run"));
}

/// One bit of any file that is read again, where no format would notice.
#[test]
fn one_flipped_bit_is_refused() {
    let (place, recipe) = (Place::new(), recipe(""));
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 8);
    let journal = place.read("run/journal.jsonl");
    for file in [
        "model.safetensors",
        "optimizer.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "config.json",
    ] {
        let path = format!("run/step-000008/{file}");
        let mut bytes = place.read(&path);
        let (last, middle) = (bytes.len() - 1, bytes.len() / 2);
        for at in [last, middle] {
            bytes[at] ^= 1;
            fs::write(place.path(&path), &bytes).unwrap();
            let say = [file, "is damaged: its checksum is", "the one before, step 5"];
            assert_refused(&resumed(&place, &recipe, "run"), &say);
            bytes[at] ^= 1;
            fs::write(place.path(&path), &bytes).unwrap();
        }
    }
    let path = "run/step-000008/state.json";
    let whole = String::from_utf8(place.read(path)).unwrap();
    fs::write(place.path(path), whole.replace("\"updates\": 8", "\"updates\": 9")).unwrap();
    assert_refused(&resumed(&place, &recipe, "run"), &["state.json", "not what was written", "step 5"]);
    fs::write(place.path(path), whole.replace("\"version\": 3", "\"version\": 1")).unwrap();
    let say =
        ["state.json", "format is 1, this one reads 3", "go on with that version", "[start] checkpoint"];
    assert_refused(&resumed(&place, &recipe, "run"), &say);
    // What it could not use it has not touched; and without one before there is none to offer.
    assert!(place.read("run/journal.jsonl") == journal);
    fs::write(place.path(path), &whole[1..]).unwrap();
    fs::remove_dir_all(place.path("run/step-000005")).unwrap();
    assert_refused(
        &resumed(&place, &recipe, "run"),
        &["state.json", "no checkpoint before it", "start a new run"],
    );
    fs::write(place.path(path), whole).unwrap();
    quietly(&resumed(&place, &recipe, "run")).unwrap();
}

/// Killed after the last checkpoint and before the model was written.
#[test]
fn a_finished_run_without_its_model_writes_it() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "run", &GO)).unwrap();
    let model = place.read("run/model/model.safetensors");
    fs::remove_dir_all(place.path("run/model")).unwrap();
    let summary = quietly(&resumed(&place, &recipe, "run")).unwrap();
    assert_eq!((summary.step, summary.stopped), (20, false));
    assert!(model == place.read("run/model/model.safetensors"));
}

/// Beginning again would overwrite a model that may have taken days.
#[test]
fn a_finished_model_without_checkpoints_is_not_trained_anew() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "run", &GO)).unwrap();
    for step in [15, 20] {
        fs::remove_dir_all(place.path(&format!("run/step-0000{step}"))).unwrap();
    }
    let before = ["run/model/model.safetensors", "run/journal.jsonl"].map(|file| place.read(file));
    assert_refused(&resumed(&place, &recipe, "run"), &["finished", "no checkpoint", "another folder"]);
    assert!(before == ["run/model/model.safetensors", "run/journal.jsonl"].map(|file| place.read(file)));
}

#[test]
fn checkpoints_without_their_recipe_are_not_called_no_run() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "run", &GO)).unwrap();
    fs::remove_file(place.path("run/recipe.toml")).unwrap();
    assert_refused(&resumed(&place, &recipe, "run"), &["cannot read", "recipe.toml"]);
}

#[test]
fn a_folder_is_new_until_something_of_a_run_is_in_it() {
    let place = Place::new();
    let said = |folder: &str| check_new(&place.path(folder)).map_err(|error| error.to_string());
    assert_eq!(said("absent"), Ok(()));
    fs::create_dir_all(place.path("run/corpus")).unwrap(); // what is prepared before the run begins
    assert_eq!(said("run"), Ok(()));
    fs::create_dir(place.path("run/step-000007")).unwrap(); // not a checkpoint: no model is in it
    assert_eq!(said("run"), Ok(()));
    for (file, state) in [
        ("run/journal.jsonl", "not yet saved"),
        ("run/step-000007/config.json", "saved at step 7"),
        ("run/step-000003/config.json", "saved at step 7"),
        ("run/model/config.json", "finished"),
    ] {
        fs::create_dir_all(place.path(file).parent().unwrap()).unwrap();
        fs::write(place.path(file), "").unwrap();
        let message = said("run").unwrap_err();
        assert!(message.contains(&format!("({state})")) && message.contains("--resume"), "{message}");
    }
    fs::remove_dir_all(place.path("run")).unwrap();
    fs::create_dir(place.path("run")).unwrap();
    fs::write(place.path("run/recipe.toml"), "").unwrap();
    assert!(said("run").unwrap_err().contains("(not yet saved)"));
}

#[test]
fn a_file_where_the_run_folder_should_be_is_one_clear_line() {
    let (place, recipe) = (Place::new(), recipe(""));
    fs::write(place.path("run"), "a file").unwrap();
    assert_refused(&place.job(&recipe, "run", &GO), &["cannot write", "run"]);
    assert_eq!(place.read("run"), b"a file");
}

/// Where the weights or the moments are infinite nothing is saved: it could not be read again, and would push
/// out the checkpoints that can.
#[test]
fn what_is_not_finite_is_never_saved() {
    let (place, recipe) = (Place::new(), recipe(""));
    let job = place.job(&recipe, "run", &GO);
    let data = Data::open(&job.corpus).unwrap();
    let batches = Batches::new(&data.train, 3, 24, 9).unwrap();
    let config = recipe.config(data.vocab_size(), None).unwrap();
    let (folder, _) = RunFolder::begin(&job, &data).unwrap();
    let ranks = &mut Ranks::alone();
    let trainer = together::first_weights(&recipe, config, ranks).unwrap();
    let observe = &mut |_: Event<'_>| ();
    let (began, validation) = (Instant::now(), None);
    let (job, data, folder, saved) = (&job, &data, Some(folder), 0);
    let mut run = Run { job, data, batches, folder, trainer, ranks, observe, began, saved, validation };
    let last = run.trainer.weights.len() - 1;
    for spoil in
        [|t: &mut Trainer, i| t.weights[i] = f32::INFINITY, |t: &mut Trainer, i| t.optimizer.v[i] = f32::NAN]
    {
        let before = run.trainer.weights[last];
        spoil(&mut run.trainer, last);
        let message = run.save().unwrap_err().to_string();
        assert!(message.contains("not finite") && message.contains("lower learning_rate"), "{message}");
        (run.trainer.weights[last], run.trainer.optimizer.v[last]) = (before, 0.0);
    }
    assert!(!place.path("run/step-000000").exists());
    run.save().unwrap();
    assert!(Llama::load(&place.path("run/step-000000"), &Formats::default()).is_ok());
}

/// What is asked of the disk is what is written, and little more.
#[test]
fn the_room_of_a_checkpoint_is_known_before_it_is_written() {
    let (place, recipe) = (Place::new(), recipe(""));
    let data = Data::open(&place.path("corpus")).unwrap();
    let (config, ranks) = (recipe.config(data.vocab_size(), None).unwrap(), &mut Ranks::alone());
    let trainer = together::first_weights(&recipe, config, ranks).unwrap();
    let folder = place.path("run/step-000000");
    let planned = checkpoint::size(&folder, &trainer, &data).unwrap();
    let (mut run, _) = RunFolder::begin(&place.job(&recipe, "run", &GO), &data).unwrap();
    run.save(&trainer, &data, ranks).unwrap();
    let written: u64 =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(written <= planned && planned <= written + (1 << 20), "{planned} planned, {written} written");
}

/// A second process would take the first one's half-written checkpoint for a leftover, and remove it.
#[cfg(unix)]
#[test]
fn two_processes_do_not_train_in_one_folder() {
    let (place, recipe) = (Place::new(), recipe(""));
    let mut tried = 0;
    run(&place.job(&recipe, "run", &GO), &mut |event| {
        if let Event::Started { .. } | Event::Checkpoint { step: 5, .. } = event {
            assert_refused(&resumed(&place, &recipe, "run"), &["another process is training in", "run"]);
            tried += 1;
        }
    })
    .unwrap();
    assert_eq!(tried, 2);
    quietly(&resumed(&place, &recipe, "run")).unwrap();
}

/// The corpus is known by its tokens: it may lie elsewhere when the run goes on.
#[test]
fn a_corpus_that_was_moved_is_the_same() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 7);
    fs::rename(place.path("corpus"), place.path("moved")).unwrap();
    let moved = recipe.text().replace("corpus = \"corpus\"", "corpus = \"moved\"");
    let moved = Recipe::from_toml(&moved, Path::new("r.toml")).unwrap();
    quietly(&Job { corpus: place.path("moved"), ..resumed(&place, &moved, "run") }).unwrap();
    assert!(place.read("whole/model/model.safetensors") == place.read("run/model/model.safetensors"));
}
