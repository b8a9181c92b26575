//! `offramp card` and `offramp demo`, from outside.

use crate::place::{LAYERS, Place};

#[test]
fn a_card_is_measured_and_stands_in_the_models_folder() {
    let place = Place::trained();
    let card =
        ["card", "run", "--data", "valid.txt", "--untouched", "train.txt", "--runs", "1", "--license", "mit"];
    assert_eq!(place.good(&card).trim(), "run/model/README.md");
    let text = String::from_utf8(place.read("run/model/README.md")).unwrap();
    let scores = place.json(&["eval", "run", "--data", "valid.txt"]);
    for exit in [2, LAYERS] {
        let perplexity = scores["exits"][exit - 1]["perplexity"].as_f64().unwrap();
        let row = if exit == LAYERS { format!("| {exit} (all) | ") } else { format!("| {exit} | ") };
        assert!(text.contains(&format!("{row}{perplexity:.2} | ")), "{row}{perplexity}\n{text}");
    }
    // The journal and the recipe lie beside the model's folder.
    for part in [
        "| steps | 30 |",
        "license: \"mit\"",
        "hidden_size = 16",
        "train.txt, ",
        "model.set_exit_layer(2)",
        "# run",
        "from_pretrained(\"run/model\"",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("TBD") && !text.contains("not measured"), "{text}");

    let svg = String::from_utf8(place.read("run/model/exits.svg")).unwrap();
    assert!(svg.starts_with("<svg") && svg.contains("perplexity at every exit"));
    let measured: serde_json::Value = serde_json::from_slice(&place.read("run/model/card.json")).unwrap();
    assert_eq!(measured["validation"]["exits"].as_array().unwrap().len(), LAYERS);
    assert_eq!(measured["speed"]["exits"].as_array().unwrap().len(), LAYERS);
    let config: serde_json::Value = serde_json::from_slice(&place.read("run/model/config.json")).unwrap();
    let class = config["auto_map"]["AutoModelForCausalLM"].as_str().unwrap();
    let (module, class) = class.split_once('.').unwrap();
    let code = String::from_utf8(place.read(&format!("run/model/{module}.py"))).unwrap();
    assert!(code.contains(&format!("class {class}(LlamaForCausalLM)")), "{code}");
    assert_eq!(
        place.json(&["eval", "run", "--data", "valid.txt"])["exits"],
        scores["exits"],
        "the same model"
    );

    // The card of ours is replaced. What was not measured this time is a command.
    place.good(&["card", "run", "--runs", "0"]);
    let text = String::from_utf8(place.read("run/model/README.md")).unwrap();
    assert!(
        text.contains("run `offramp card run/model --data FILE`") && text.contains("| 4 (all) | – |"),
        "{text}"
    );
}

#[test]
fn a_gguf_file_has_its_card_in_a_folder_of_its_own() {
    let place = Place::trained();
    place.good(&["export", "run", "--gguf", "my model.gguf", "--type", "bf16"]);
    place.run(&["card", "my model.gguf"]).assert_error(2, &["my model.gguf", "no folder", "--out"]);
    place.run(&["card", "run", "--out", "x"]).assert_error(2, &["run/model", "--out is for a GGUF file"]);
    place.run(&["card", "my model.gguf", "--out", "run/model"]).assert_error(2, &["run/model", "another's"]);
    place.run(&["card", "absent.gguf", "--out", "x"]).assert_error(2, &["absent.gguf"]);
    let card = ["card", "my model.gguf", "--out", "cards/one", "--data", "valid.txt", "--runs", "1"];
    assert_eq!(place.good(&card).trim(), "cards/one/README.md");
    let text = String::from_utf8(place.read("cards/one/README.md")).unwrap();
    let scores = place.json(&["eval", "my model.gguf", "--data", "valid.txt"]);
    let perplexity = scores["exits"][LAYERS - 1]["perplexity"].as_f64().unwrap();
    for part in [
        &format!("| {LAYERS} (all) | {perplexity:.2} | "),
        "library_name: gguf\n",
        "- gguf\n",
        "# my model\n",
        "| weights | BF16, F32, ",
        "offramp generate 'my model.gguf' --prompt",
        "offramp quantize 'my model.gguf' --to bf16 --out model-folder\n",
        "`offramp card 'my model.gguf' --out cards/one --run RUN_FOLDER`",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("modeling_early_exit") && !text.contains("library_name: transformers"), "{text}");
    let files = std::fs::read_dir(place.path("cards/one")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["README.md", "card.json", "exits.svg"]);
    // Its commands work.
    place.good(&["generate", "my model.gguf", "--prompt", "Once", "--exit-layer", "2"]);
    place.good(&["quantize", "my model.gguf", "--to", "bf16", "--out", "model-folder"]);
    let card = ["card", "my model.gguf", "--out", "cards/one", "--runs", "0", "--run", "run"];
    place.good(&card);
    assert!(String::from_utf8(place.read("cards/one/README.md")).unwrap().contains("| steps | 30 |"));
    place.write("cards/one/README.md", "# My own words\n");
    place.run(&card).assert_error(2, &["cards/one/README.md", "--overwrite"]);
}

#[test]
fn somebody_elses_card_is_not_overwritten() {
    let place = Place::trained();
    // Bytes in an old encoding: nobody can tell who wrote them.
    let old = b"# Caf\xe9\n";
    place.write("run/model/README.md", old);
    place.run(&["card", "run", "--runs", "0"]).assert_error(2, &["README.md", "--overwrite"]);
    assert_eq!(place.read("run/model/README.md"), old);
    place.write("run/model/README.md", "# My own words\n");
    let ran = place.run(&["card", "run", "--runs", "0"]);
    ran.assert_error(2, &["run/model/README.md", "--overwrite"]);
    assert_eq!(place.read("run/model/README.md"), b"# My own words\n");
    place.good(&["card", "run", "--runs", "0", "--overwrite"]);
    assert!(place.read("run/model/README.md").starts_with(b"---\n"));
    place.run(&["card", "run", "--exits", "5"]).assert_error(2, &["exit layer 5"]);
    place.run(&["card", "run", "--data", "nowhere.txt"]).assert_error(2, &["nowhere.txt"]);
}

/// The model that comes with the program; a folder would do too.
#[test]
fn the_bundled_model_needs_no_folder() {
    let place = Place::empty();
    let text = place.good(&["generate", "--max-new-tokens", "12", "--exit-layer", "6"]);
    assert!(text.starts_with("Once upon a time") && text.len() > 20, "{text}");
    place.write("story.txt", "Once upon a time, there was a little girl named Lily. She had a red ball.\n");
    let found = place.json(&["eval", "--data", "story.txt", "--exits", "6,24"]);
    let perplexity = |exit: usize| found["exits"][exit]["perplexity"].as_f64().unwrap();
    assert!(perplexity(1) < 20.0 && perplexity(0) < 40.0, "it has learnt such stories: {found}");
    let inside = place.good(&["inspect"]);
    assert!(inside.contains("4,184,192") && inside.contains("exit layers 1 to 24"), "{inside}");
    let speed = ["bench", "--prompt-tokens", "8", "--new-tokens", "4", "--runs", "1", "--exits", "6,24"];
    assert_eq!(place.json(&speed)["reports"][0]["exits"].as_array().unwrap().len(), 2);
}

#[test]
fn the_demo_shows_what_depth_buys() {
    let place = Place::empty();
    let told = place.json(&["demo", "--max-new-tokens", "8", "--prompt", "The fox"]);
    let exits: Vec<_> = told["exits"].as_array().unwrap().iter().map(|exit| &exit["exit_layer"]).collect();
    assert_eq!(exits, [6, 12, 18, 24]);
    let perplexity = |exit: usize| told["exits"][exit]["perplexity"].as_f64().unwrap();
    assert!(perplexity(3) < perplexity(0), "depth buys something: {told}");
    let recorded = told["recorded"]["validation"]["exits"].as_array().unwrap();
    assert_eq!(recorded.len(), 24, "what the card measured");
    assert_eq!(told["continuations"].as_array().unwrap().len(), 4);
    let text = place.good(&["demo", "--max-new-tokens", "8"]);
    assert!(text.contains("TinyStories") && text.contains("── exit 6 ──"), "{text}");
}
