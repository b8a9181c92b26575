//! Runs that are resumed after something has changed, and the messages at their end.

use crate::place::Place;

#[test]
fn a_recipe_may_name_several_files() {
    let place = Place::new();
    let train = String::from_utf8(place.read("train.txt")).unwrap();
    let stories: Vec<_> = train.split("\n<|endoftext|>\n").collect();
    let (first, last) = stories.split_at(70);
    place.write("train-0.txt", first.join("\n<|endoftext|>\n"));
    place.write("train-1.txt", last.join("\n<|endoftext|>\n"));
    let data = |train: &str| {
        format!("train = {train}\nvalid = \"valid.txt\"\ntokenizer = \"bpe\"\nvocab_size = 300")
    };
    place.recipe("one.toml", "corpus = \"corpus\"", &data("\"train.txt\""));
    place.recipe("several.toml", "corpus = \"corpus\"", &data("[\"train-0.txt\", \"train-1.txt\"]"));
    for name in ["one", "several"] {
        place.good(&["train", &format!("{name}.toml"), "--out", name]);
    }
    for file in ["corpus/train-00000.tokens", "corpus/tokenizer.json", "model/model.safetensors"] {
        assert!(place.read(&format!("one/{file}")) == place.read(&format!("several/{file}")), "{file}");
    }
    place.recipe("none.toml", "corpus = \"corpus\"", &data("[]"));
    place.run(&["train", "none.toml"]).assert_error(2, &["none.toml", "data.train is []", "at least one"]);
}

/// `model/` is the last step's model, unless `--best` is given. Every command accepts either, and any step's
/// folder.
#[test]
fn the_end_of_a_run_says_which_model_it_is_and_where_the_best_is() {
    let place = Place::new();
    // The learning rate rises until the loss rises.
    let text = String::from_utf8(place.read("recipe.toml")).unwrap();
    let text = text.replace(
        "[schedule]\nwarmup_steps = 5",
        "[optimizer]\nlearning_rate = 2.0\n[schedule]\nwarmup_steps = 30",
    );
    place.write("wild.toml", text.replace("every = 10", "every = 2"));
    let ran = place.run(&["train", "wild.toml", "--out", "run", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let best = &answer["best"];
    let folder = best["folder"].as_str().unwrap();
    assert!(
        best["step"].as_u64().unwrap() < 30 && best["loss"].as_f64().is_some(),
        "a run that tells: {best}"
    );
    let line = ran.stderr.lines().find(|line| line.starts_with("model/ is of the last step")).unwrap();
    assert!(line.contains(folder) && line.contains("--resume --best"), "{line}");

    let model = |folder: &str| place.read(&format!("{folder}/model.safetensors"));
    assert!(model("run/model") == model("run/step-000030") && model("run/model") != model(folder));
    let ran = place.run(&["train", "wild.toml", "--out", "run", "--resume", "--best"]);
    assert!(
        ran.stderr.contains("model/ is of step ") && ran.stderr.contains("lowest validation loss"),
        "{}",
        ran.stderr
    );
    assert!(model("run/model") == model(folder));

    let loss = |path: &str| {
        let scores = place.json(&["eval", path, "--data", "corpus", "--exits", "4", "--context", "32"]);
        scores["exits"][0]["nats_per_token"].as_f64().unwrap()
    };
    assert!((loss(folder) - best["loss"].as_f64().unwrap()).abs() < 1e-4);
    assert_eq!(loss("run"), loss(folder));
    place.good(&["generate", folder, "--max-new-tokens", "3"]);
    place.good(&["bench", folder, "--prompt-tokens", "8", "--new-tokens", "4", "--runs", "1"]);
    assert!(place.good(&["inspect", folder]).contains("parameters"));
    place.good(&["quantize", folder, "--out", "small", "--to", "int8"]);
    // A card would change the checkpoint. The message names a command that works.
    place.run(&["card", folder, "--runs", "0"]).assert_error(2, &["--resume --best"]);
    place.good(&["card", "run", "--runs", "0"]);
}

#[test]
fn a_run_goes_on_for_more_steps_and_with_a_moved_corpus() {
    let place = Place::new();
    place.good(&["train", "recipe.toml", "--out", "runs/run"]);
    std::fs::create_dir(place.path("elsewhere")).unwrap();
    std::fs::rename(place.path("corpus"), place.path("runs/corpus")).unwrap();
    place.recipe("longer.toml", "steps = 30", "steps = 40");
    let ran = place.run(&["train", "longer.toml", "--out", "runs/run", "--resume"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    for part in [
        "the corpus is not at corpus: reading",
        "30 steps have become 40",
        "learning rate",
        "[start] checkpoint",
    ] {
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    place
        .run(&["train", "recipe.toml", "--out", "runs/run", "--resume"])
        .assert_error(2, &["training.steps is 30", "40"]);
    std::fs::remove_dir_all(place.path("runs/corpus")).unwrap();
    let gone = ["train", "longer.toml", "--out", "runs/run", "--resume"];
    place.run(&gone).assert_error(2, &["neither at corpus", "set data.corpus in longer.toml"]);
}

/// A run so short that it ends in its warm-up: a missing number is a dash, nowhere a NaN.
#[test]
fn what_there_is_no_number_of_is_a_dash() {
    let place = Place::new();
    let text = String::from_utf8(place.read("recipe.toml")).unwrap();
    let text = text.replace("steps = 30", "steps = 2").replace("warmup_steps = 5", "warmup_steps = 2");
    place.write("short.toml", text);
    let ran = place.run(&["train", "short.toml", "--out", "run", "--profile"]);
    assert!(ran.stderr.contains("(after the warm-up –)"), "{}", ran.stderr);
    let again = place.run(&["train", "short.toml", "--out", "run", "--resume", "--profile"]);
    let plotted = place.run(&["train", "short.toml", "--out", "run", "--plot"]);
    place.good(&["card", "run", "--runs", "0"]);
    let card = String::from_utf8(place.read("run/model/README.md")).unwrap();
    for text in [&ran.stderr, &ran.stdout, &again.stderr, &plotted.stdout, &card] {
        assert!(!text.contains("NaN") && !text.contains("inf ") && !text.contains("inf%"), "{text}");
    }
}
