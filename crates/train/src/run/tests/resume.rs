//! Runs that go on although something around them has changed, and runs that must not.

use super::*;
use offramp_model::checkpoint::Checksum;

fn with(recipe: &Recipe, from: &str, to: &str) -> Recipe {
    assert!(recipe.text().contains(from), "{from}");
    Recipe::from_toml(&recipe.text().replace(from, to), Path::new("r.toml")).unwrap()
}

fn resumed<'a>(place: &Place, recipe: &'a Recipe, folder: &str) -> Job<'a> {
    Job { resume: true, ..place.job(recipe, folder, &GO) }
}

/// Stories of so many kinds, prepared as `name` with a vocabulary of so many tokens.
fn prepared(place: &Place, name: &str, (train, valid): (usize, usize), vocab_size: usize) {
    let story =
        |kind: usize, i: usize| format!("The cat number {i} saw {} birds and sang.", (i * i + kind) % 37);
    let text = |kind, count| (0..count).map(|i| story(kind, i)).collect::<Vec<_>>().join("\n<|endoftext|>\n");
    let files = ["t.txt", "v.txt"].map(|name| place.path(name));
    fs::write(&files[0], text(train, 120)).unwrap();
    fs::write(&files[1], text(valid, 9)).unwrap();
    let [train, valid] = files;
    let (tokenizer, out) = (TokenizerChoice::Train { vocab_size }, place.path(name));
    let options = PrepareOptions {
        train: vec![train],
        valid: vec![valid],
        reading: Default::default(),
        out,
        tokenizer,
        shard_tokens: 1 << 20,
    };
    prepare(&options, &mut |_| ()).unwrap();
}

/// A copy of a prepared corpus without its validation split, or with one of a single token.
fn with_short_validation(place: &Place, name: &str) {
    let files = ["t.txt", "v.txt"].map(|name| place.path(name));
    fs::write(&files[0], "The cat saw birds and sang. ".repeat(90)).unwrap();
    fs::write(&files[1], "a").unwrap();
    let [train, valid] = files;
    let tokenizer = TokenizerChoice::Train { vocab_size: 280 };
    let out = place.path(name);
    let options = PrepareOptions {
        train: vec![train],
        valid: vec![valid],
        reading: Default::default(),
        out,
        tokenizer,
        shard_tokens: 1 << 20,
    };
    prepare(&options, &mut |_| ()).unwrap();
}

#[test]
fn when_it_is_measured_and_saved_changes_no_step() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 7);
    let other = with(&recipe, "every = 8", "every = 3\nexits = [2]\nmax_tokens = 50");
    let other = with(&other, "every = 5\nkeep = 2", "every = 4\nkeep = 4");
    let mut saved = Vec::new();
    run(&resumed(&place, &other, "run"), &mut |event| {
        if let Event::Checkpoint { step, .. } = event {
            saved.push(step);
        }
    })
    .unwrap();
    assert_eq!(saved, [8, 12, 16, 20], "by the new recipe");
    assert!(place.read("whole/model/model.safetensors") == place.read("run/model/model.safetensors"));
    assert_eq!(place.read("run/recipe.toml"), other.text().as_bytes(), "which the run keeps");
}

/// The schedule is that of a run of so many steps from here on, and whoever asked for it is told.
#[test]
fn a_run_may_go_on_for_more_steps() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "run", &GO)).unwrap();
    let longer = with(&recipe, "steps = 20", "steps = 30");
    let mut told = Vec::new();
    let summary = run(&resumed(&place, &longer, "run"), &mut |event| {
        if let Event::Longer { before, steps, learning_rates } = event {
            told.push((before, steps, learning_rates));
        }
    })
    .unwrap();
    // Half a cosine after three steps of warm-up, down to a tenth: computed apart.
    let cosine = |done: f64| 1e-2 * (0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * done).cos()));
    let [(20, 30, [was, is])] = told[..] else { panic!("{told:?}") };
    assert!((was - 1e-3).abs() < 1e-12 && (is - cosine(17.0 / 27.0)).abs() < 1e-12, "{was}, {is}");
    assert_eq!((summary.step, summary.stopped), (30, false));
    let rates: Vec<_> = journal_of(&place, "run")
        .into_iter()
        .filter_map(|record| match record {
            Record::Step(step) => Some(step.learning_rate),
            _ => None,
        })
        .collect();
    assert!(rates.len() == 30 && rates[20] == is && rates[29] < rates[20], "{rates:?}");
    // It is a run of thirty steps now.
    assert_refused(&resumed(&place, &recipe, "run"), &["training.steps is 20", "begun with 30"]);
    let mut silent = true;
    run(&resumed(&place, &longer, "run"), &mut |event| silent &= !matches!(event, Event::Longer { .. }))
        .unwrap();
    assert!(silent, "nothing has become longer");
}

#[test]
fn a_stage_that_has_begun_is_not_taken_back() {
    let place = Place::new();
    let staged = with(&recipe(""), "[schedule]", "[schedule]\nsecond_stage = 0.5\nsecond_fraction = 0.5");
    let longer = with(&staged, "steps = 20", "steps = 36");
    for (last, goes_on) in [(9, true), (14, false)] {
        let (stop, folder) = (AtomicBool::new(false), format!("run-{last}"));
        stopped_after(&place.job(&staged, &folder, &stop), &stop, last);
        match goes_on {
            true => assert_eq!(quietly(&resumed(&place, &longer, &folder)).unwrap().step, 36),
            false => assert_refused(
                &resumed(&place, &longer, &folder),
                &["training.steps is 36 in r.toml", "keep 20", "[start] checkpoint"],
            ),
        }
    }
}

/// What a run began from is in it: the folder may go, be moved, or become another.
#[test]
fn the_model_that_a_run_began_from_is_needed_once() {
    let place = Place::new();
    quietly(&place.job(&recipe(""), "first", &GO)).unwrap();
    fs::rename(place.path("first/model"), place.path("base")).unwrap();
    let text = recipe("").text().to_owned();
    let sizes = text[text.find("[model]").unwrap()..text.find("[training]").unwrap()].to_owned();
    let begun_from =
        |name: &str| text.replace(&sizes, &format!("[start]\ncheckpoint = {:?}\n", place.path(name)));
    let write = |name: &str, text: &str| {
        fs::write(place.path(name), text).unwrap();
        place.path(name)
    };
    let path = write("r.toml", &begun_from("base"));
    let begun = Recipe::read(&path).unwrap();
    quietly(&place.job(&begun, "whole", &GO)).unwrap();
    for folder in ["run", "old"] {
        let stop = AtomicBool::new(false);
        stopped_after(&place.job(&begun, folder, &stop), &stop, 7);
    }
    fs::remove_file(place.path("old/start.json")).unwrap(); // as runs of before were
    fs::remove_dir_all(place.path("base")).unwrap();
    let message = Recipe::read(&path).unwrap_err().to_string();
    assert!(message.contains("config.json"), "a new run needs it: {message}");
    let moved = write("moved.toml", &begun_from("elsewhere"));
    for (folder, file) in [("run", &path), ("old", &moved)] {
        let recipe = Recipe::read_for_run(file, &place.path(folder)).unwrap();
        assert_eq!(quietly(&resumed(&place, &recipe, folder)).unwrap().step, 20);
        for file in ["model/model.safetensors", "model/config.json"] {
            let [whole, run] = ["whole", folder].map(|run| place.read(&format!("{run}/{file}")));
            assert!(whole == run, "{folder}/{file}");
        }
    }
}

/// Ids of another tokenizer mean other words to the model.
#[test]
fn a_corpus_of_another_tokenizer_than_the_models_is_refused() {
    let place = Place::new();
    quietly(&place.job(&recipe(""), "first", &GO)).unwrap();
    prepared(&place, "other", (5, 5), 279); // fewer tokens than the model has: every id fits
    let text = recipe("").text().to_owned();
    let sizes = &text[text.find("[model]").unwrap()..text.find("[training]").unwrap()];
    let start = format!("[start]\ncheckpoint = {:?}\n", place.path("first/model"));
    let begun = Recipe::from_toml(&text.replace(sizes, &start), Path::new("r.toml")).unwrap();
    let job = Job { corpus: place.path("other"), ..place.job(&begun, "run", &GO) };
    let advice = place.path("first/model/tokenizer.json").display().to_string();
    assert_refused(
        &job,
        &["r.toml: the corpus is of another tokenizer", "other words", &advice, "--tokenizer"],
    );
    assert!(!place.path("run").exists());
    // The advice works.
    let options = PrepareOptions {
        train: vec![place.path("t.txt")],
        valid: vec![place.path("v.txt")],
        reading: Default::default(),
        out: place.path("again"),
        tokenizer: TokenizerChoice::File(advice.into()),
        shard_tokens: 1 << 20,
    };
    prepare(&options, &mut |_| ()).unwrap();
    quietly(&Job { corpus: place.path("again"), ..place.job(&begun, "run", &GO) }).unwrap();
    // A tokenizer of its own would mean other words too, and that is known before anything is prepared.
    let trains =
        text.replace("corpus = \"corpus\"", "train = \"t.txt\"\ntokenizer = \"bpe\"\nvocab_size = 280");
    let message =
        Recipe::from_toml(&trains.replace(sizes, &start), Path::new("r.toml")).unwrap_err().to_string();
    assert!(message.contains("data.tokenizer is \"bpe\"") && message.contains("tokenizer.json"), "{message}");
}

#[test]
fn another_tokenizer_or_validation_split_does_not_go_on() {
    let (place, recipe) = (Place::new(), recipe(""));
    prepared(&place, "corpus", (0, 0), 280);
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 6);
    let with_corpus = |name: &str| Job { corpus: place.path(name), ..resumed(&place, &recipe, "run") };
    prepared(&place, "other-valid", (0, 1), 280);
    assert_refused(&with_corpus("other-valid"), &["validation", "begun with", "prepare the same corpus"]);
    prepared(&place, "no-valid", (0, 0), 280);
    let manifest = place.path("no-valid/corpus.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
    json.as_object_mut().unwrap().remove("valid");
    fs::write(&manifest, json.to_string()).unwrap();
    assert_refused(&with_corpus("no-valid"), &["validation tokens: 0", "begun with"]);
    prepared(&place, "other-tokenizer", (0, 0), 270);
    assert_refused(&with_corpus("other-tokenizer"), &["a vocabulary of 270", "begun with 280"]);
    // As many tokens, other words: the folder's tokenizer.json is not the one that made its ids.
    prepared(&place, "mixed", (0, 0), 280);
    let merges = |json: &mut serde_json::Value| json["model"]["merges"].as_array_mut().unwrap().swap(0, 1);
    let tokenizer = place.path("mixed/tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&tokenizer).unwrap()).unwrap();
    merges(&mut json);
    fs::write(&tokenizer, json.to_string()).unwrap();
    assert_refused(
        &with_corpus("mixed"),
        &["mixed", "not the tokenizer that made", "prepare the corpus again"],
    );
    quietly(&with_corpus("corpus")).unwrap();
}

/// `state.json` as version 2 wrote it, which did not know the tokenizer or the validation split.
fn as_version_2(text: &str) -> String {
    let corpus = text.find("\"corpus\"").unwrap();
    let (from, to) = (text[corpus..].find(",\n    \"tokenizer\"").unwrap(), text.find("\"files\"").unwrap());
    let text = format!("{}\n  }},\n  {}", &text[..corpus + from], &text[to..]).replacen(": 3", ": 2", 1);
    with_its_checksum(&text)
}

/// The same with the checksum of what it says.
fn with_its_checksum(text: &str) -> String {
    let itself = text.find("\"itself\"").unwrap();
    let without = format!("{}\"itself\":null}}", &text[..itself]);
    let compact: String = without.split_whitespace().collect();
    let sum = serde_json::to_string(&Checksum::of(compact.as_bytes())).unwrap();
    format!("{}\"itself\": {sum}\n}}", &text[..itself])
}

#[test]
fn a_run_of_before_goes_on() {
    let (place, recipe) = (Place::new(), recipe(""));
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 10);
    let path = "run/step-000010/state.json";
    let new = String::from_utf8(place.read(path)).unwrap();
    assert_eq!(
        with_its_checksum(&new).split_whitespace().collect::<String>(),
        new.split_whitespace().collect::<String>()
    );
    let old = as_version_2(&new);
    assert!(!old.contains("tokenizer\"") && !old.contains("valid"), "{old}");
    fs::write(place.path(path), &old).unwrap();
    // What it knows is still compared.
    prepared(&place, "other", (1, 0), 280);
    let other = Job { corpus: place.path("other"), ..resumed(&place, &recipe, "run") };
    assert_refused(&other, &["the corpus in", "begun with"]);
    quietly(&resumed(&place, &recipe, "run")).unwrap();
    for file in ["step-000020/state.json", "model/model.safetensors"] {
        assert!(place.read(&format!("whole/{file}")) == place.read(&format!("run/{file}")), "{file}");
    }
    assert!(!old.contains("\"version\": 3") && new.contains("\"version\": 3"));
}

/// serde forgets to refuse unknown keys beside a flattened struct.
#[test]
fn a_key_that_no_state_has_is_refused() {
    let (place, recipe) = (Place::new(), recipe(""));
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "run", &stop), &stop, 6);
    let path = "run/step-000006/state.json";
    let whole = String::from_utf8(place.read(path)).unwrap();
    for (from, to) in
        [("\"updates\"", "\"update\": 3, \"updates\""), ("\"vocab_size\"", "\"vocab\": 1, \"vocab_size\"")]
    {
        fs::write(place.path(path), with_its_checksum(&whole.replacen(from, to, 1))).unwrap();
        let key = to.split('"').nth(1).unwrap();
        assert_refused(
            &resumed(&place, &recipe, "run"),
            &["state.json", &format!("unknown field `{key}`"), "step 5"],
        );
    }
}

#[test]
fn a_validation_split_that_is_too_short_is_noticed_before_training() {
    let (place, recipe) = (Place::new(), recipe(""));
    with_short_validation(&place, "short");
    let job = Job { corpus: place.path("short"), ..place.job(&recipe, "run", &GO) };
    assert_refused(&job, &["validation split of", "short has 1 token,", "more validation stories"]);
    assert!(!place.path("run").exists());
}

#[test]
fn the_finished_model_may_be_the_best() {
    let place = Place::new();
    // It learns ever faster until it unlearns: the best is not the last.
    let text = recipe("").text().replace("learning_rate = 1e-2", "learning_rate = 3.0");
    let text = text.replace("warmup_steps = 3", "warmup_steps = 20");
    let text = text.replace("every = 8", "every = 2").replace("every = 5\nkeep = 2", "every = 1\nkeep = 1");
    let recipe = Recipe::from_toml(&text, Path::new("r.toml")).unwrap();
    let summary = quietly(&place.job(&recipe, "run", &GO)).unwrap();
    let best = summary.best.unwrap();
    assert!(best.step < 20, "a run that tells: {best:?}");
    let of_step = |step: u64, file: &str| place.read(&format!("run/step-{step:06}/{file}"));
    let files = [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    ];
    assert!(files.iter().all(|file| place.read(&format!("run/model/{file}")) == of_step(20, file)));
    let summary = quietly(&Job { best: true, ..resumed(&place, &recipe, "run") }).unwrap();
    assert_eq!((summary.step, summary.best.unwrap().step), (20, best.step));
    for file in files {
        assert!(place.read(&format!("run/model/{file}")) == of_step(best.step, file), "{file}");
    }
    assert_eq!(
        fs::read_dir(place.path("run/model")).unwrap().count(),
        files.len(),
        "and nothing of the run's"
    );
    // A damaged best is not made the model.
    let path = place.path(&format!("run/step-{:06}/model.safetensors", best.step));
    let mut bytes = fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_refused(
        &Job { best: true, ..resumed(&place, &recipe, "run") },
        &["model.safetensors", "is damaged"],
    );
}

#[test]
fn the_best_is_not_asked_for_in_vain() {
    let (place, recipe) = (Place::new(), recipe(""));
    let text = "The cat saw birds and sang. ".repeat(90);
    fs::write(place.path("t.txt"), text).unwrap();
    let options = PrepareOptions {
        train: vec![place.path("t.txt")],
        valid: Vec::new(),
        reading: Default::default(),
        out: place.path("alone"),
        tokenizer: TokenizerChoice::Train { vocab_size: 280 },
        shard_tokens: 1 << 20,
    };
    prepare(&options, &mut |_| ()).unwrap();
    let job = Job { corpus: place.path("alone"), best: true, ..place.job(&recipe, "run", &GO) };
    assert_refused(&job, &["no best checkpoint", "validation stories", "without --best"]);
    assert!(!place.path("run").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn what_no_machine_has_is_refused_before_anything_is_written() {
    let (place, recipe) = (Place::new(), recipe(""));
    let large = with(&recipe, "[model]", "[model]\nmax_position_embeddings = 1000000");
    let large = with(&large, "batch_size = 3", "batch_size = 16777216");
    let long = with(&large, "sequence_length = 24", "sequence_length = 1000");
    assert_refused(
        &place.job(&long, "run", &GO),
        &["r.toml: training needs about", "GB are available", "batch_size"],
    );
    assert!(!place.path("run").exists());
}

#[test]
fn a_corpus_that_was_moved_is_found() {
    let place = Place::new();
    let (recipe, run) = (place.path("recipes/r.toml"), place.path("runs/a"));
    fs::create_dir_all(&run).unwrap();
    fs::create_dir_all(place.path("recipes")).unwrap();
    let find = |named: &str| find_corpus(Path::new(named), &recipe, &run);
    let from = place.path("corpus");
    assert_eq!(find(from.to_str().unwrap()).unwrap(), from, "where the recipe says");
    for to in ["recipes/data/stories", "data/stories", "runs/data/stories", "runs/stories", "stories"] {
        let to = place.path(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::rename(&from, &to).unwrap();
        let found = find("data/stories").unwrap();
        assert_eq!(fs::canonicalize(found).unwrap(), fs::canonicalize(&to).unwrap());
        fs::rename(&to, &from).unwrap();
    }
    let message = find("data/stories").unwrap_err().to_string();
    assert!(message.contains("data/stories") && message.contains("set data.corpus in"), "{message}");
}
