//! The whole way from stories to a generated story, and the form of each command's output.

use crate::place::{LAYERS, Place};

#[test]
fn stories_become_a_model_that_is_measured_and_tells_one() {
    let place = Place::new();
    let told = place.good(&["train", "recipe.toml", "--out", "run"]);
    assert!(told.contains("perplexity") && told.contains("Once upon a time"), "{told}");

    let scores = place.json(&["eval", "run", "--data", "valid.txt"]);
    let exits = scores["exits"].as_array().unwrap();
    assert_eq!(exits.len(), LAYERS);
    assert_eq!(exits[LAYERS - 1]["agreement"], 1.0);
    let perplexity = exits[LAYERS - 1]["perplexity"].as_f64().unwrap();
    assert!(perplexity > 2.0 && perplexity < 300.0, "{perplexity}: something was learnt");
    // A prepared folder means its validation split, and the number of threads does not matter.
    let prepared = place.json(&["eval", "run/model", "--data", "corpus", "--threads", "1"]);
    assert_eq!(prepared["exits"], scores["exits"]);

    let bench = ["bench", "run", "--prompt-tokens", "8", "--new-tokens", "4", "--runs", "1"];
    let speed = place.json(&bench);
    let exits: Vec<_> =
        speed["reports"][0]["exits"].as_array().unwrap().iter().map(|exit| &exit["exit_layer"]).collect();
    assert_eq!(exits, [1, 2, 3, 4]);
    assert!(place.good(&bench).contains("speed-up"));

    let generate = ["generate", "run", "--prompt", "The heron", "--exit-layer", "2", "--max-new-tokens", "9"];
    let text = place.good(&generate);
    assert!(text.starts_with("The heron") && text.ends_with('\n'));
    assert_eq!(text, place.good(&generate), "the same seed, the same text");
    let told = place.json(&generate);
    assert_eq!((&told["exit_layer"], &told["prompt"]), (&2.into(), &"The heron".into()));
    assert_eq!(text, format!("The heron{}\n", told["text"].as_str().unwrap()));
}

#[test]
fn a_recipe_may_name_the_stories_themselves() {
    let place = Place::new();
    let data = "train = \"train.txt\"\nvalid = \"valid.txt\"\ntokenizer = \"bpe\"\nvocab_size = 290";
    place.recipe("recipe.toml", "corpus = \"corpus\"", data);
    let answer = place.json(&["train", "recipe.toml"]);
    assert_eq!((&answer["folder"], &answer["step"]), (&"runs/recipe".into(), &30.into()));
    assert_eq!(answer["exits"].as_array().unwrap().len(), LAYERS);
    assert!(answer["story"].as_str().unwrap().starts_with("Once upon a time"));
    let inside = place.good(&["inspect", "runs/recipe"]);
    assert!(inside.contains("exit layers 1 to 4") && inside.contains("30 steps"), "{inside}");
}

#[test]
fn several_files_are_one_corpus() {
    let place = Place::new();
    let train = String::from_utf8(place.read("train.txt")).unwrap();
    let stories: Vec<_> = train.split("\n<|endoftext|>\n").collect();
    let (first, last) = stories.split_at(70);
    place.write("train-0.txt", first.join("\n<|endoftext|>\n"));
    place.write("train-1.txt", last[..9].join("\n<|endoftext|>\n"));
    place.write("train-2.txt", last[9..].join("\n<|endoftext|>\n"));
    let parts = ["prepare", "train-0.txt", "train-1.txt", "train-2.txt"];
    let options = ["--valid", "valid.txt", "--vocab-size", "300", "--out", "parts"];
    let told = place.good(&[&parts[..], &options].concat());
    assert!(told.contains("150 stories") && told.contains("from train-0.txt and 2 more\n"), "{told}");
    assert!(told.contains("from valid.txt\n"), "{told}");
    for file in ["tokenizer.json", "train-00000.tokens", "valid-00000.tokens"] {
        assert!(place.read(&format!("parts/{file}")) == place.read(&format!("corpus/{file}")), "{file}");
    }
    let told = place.json(&[&parts[..3], &options].concat());
    assert_eq!(told["train"]["sources"], serde_json::json!(["train-0.txt", "train-1.txt"]));
    place.write("train-1.txt", "");
    place.run(&[&parts[..], &options].concat()).assert_error(2, &["train-1.txt holds no stories"]);
    assert_eq!(place.run(&[&parts[..1], &options].concat()).code, 2, "no file at all");
}

/// Without allocating it: 4 GB would kill the test.
#[test]
fn the_cards_recipe_has_the_cards_parameters() {
    let recipe = concat!(env!("CARGO_MANIFEST_DIR"), "/../../recipes/llama3-earlyexit.toml");
    let inside = Place::new().json(&["inspect", recipe]);
    assert_eq!(inside["parameters"], 1_061_591_040u64);
    assert_eq!(inside["config"]["num_hidden_layers"], 24);
}

#[test]
fn the_curves_of_a_run_are_drawn_at_its_end_and_again_on_demand() {
    let place = Place::trained();
    let drawn = place.read("run/curves.svg");
    let svg = String::from_utf8(drawn.clone()).unwrap();
    for part in
        ["<svg", "run: loss, nats per token", "validation, exit 1", "validation, exit 4", "gradient norm"]
    {
        assert!(svg.contains(part), "{part}");
    }
    std::fs::remove_file(place.path("run/curves.svg")).unwrap();
    let report = place.json(&["train", "recipe.toml", "--out", "run", "--plot"]);
    assert_eq!((&report["steps"], &report["skipped"]), (&30.into(), &0.into()));
    assert_eq!(report["validation"].as_array().unwrap().len(), 3);
    let norms = &report["grad_norm"];
    assert!(norms["median"].as_f64().unwrap() <= norms["max"].as_f64().unwrap());
    assert!(place.read("run/curves.svg") == drawn, "the same journal, the same picture");
    place.run(&["train", "recipe.toml", "--out", "none", "--plot"]).assert_error(2, &["none/journal.jsonl"]);
}

#[test]
fn a_run_tells_a_file_how_it_goes_and_how_it_went() {
    let place = Place::new();
    let ran = place.run(&["train", "recipe.toml", "--out", "run", "--json"]);
    let lines: Vec<_> = ran.stderr.lines().collect();
    let starting = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(starting("validation at step "), 3, "{}", ran.stderr);
    let last = lines.iter().find(|line| line.starts_with("step 30/30 (100%) · loss ")).unwrap();
    for part in
        [", smoothed ", " · gradient ", " · median ", " tokens/s · 0s left", " · 0 skipped · 0 loss spikes"]
    {
        assert!(last.contains(part), "{last}");
    }
    assert!(!ran.stderr.contains('\u{1b}'), "nothing that only a terminal understands");
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let training = &answer["training"];
    let norms = ["median", "percentile_99", "max"].map(|key| training["grad_norm"][key].as_f64().unwrap());
    assert!(0.0 < norms[0] && norms.is_sorted(), "{norms:?}");
    assert_eq!((&training["loss_spikes"], &training["skipped"]), (&0.into(), &0.into()));
    #[cfg(target_os = "linux")]
    {
        assert!(last.contains(" · memory ") && last.contains(", peak "), "{last}");
        assert!(answer["peak_memory"].as_u64().unwrap() > 1_000_000);
    }
}

#[test]
fn an_empty_prompt_lets_the_model_begin() {
    let place = Place::trained();
    let answer = place.json(&["generate", "run", "--prompt", "", "--max-new-tokens", "3"]);
    assert_eq!(answer["prompt_tokens"], 1);
}

#[test]
fn every_command_has_a_help_with_an_example() {
    let place = Place::new();
    let help = place.good(&["--help"]);
    for command in ["prepare", "train", "eval", "bench", "generate", "inspect", "quantize"] {
        assert!(help.contains(command), "{help}");
        let help = place.good(&[command, "--help"]);
        assert!(help.contains(&format!("Example:\n  offramp {command} ")), "{help}");
        assert!(help.contains("--json"), "{help}");
    }
}

#[test]
fn results_go_to_stdout_and_quick_work_shows_no_progress() {
    let place = Place::trained();
    let ran = place.run(&["eval", "run", "--data", "valid.txt"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
}
