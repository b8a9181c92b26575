//! A command that needs more memory than is available says so in one line, before it allocates. The stated
//! need is what a process really uses.

use crate::place::Place;

/// The stated need of a run of one step, and the peak memory of its process.
#[cfg(target_os = "linux")]
fn said_and_held(place: &Place, model: &str, training: &str) -> [f64; 2] {
    let text = String::from_utf8(place.read("recipe.toml")).unwrap();
    let sizes = &text[text.find("[model]").unwrap()..text.find("[training]").unwrap()];
    let text = text.replace(sizes, &format!("[model]\n{model}\n"));
    let text = text.replace("steps = 30\nbatch_size = 2\naccumulation = 1\nsequence_length = 32", training);
    place.write("sized.toml", text.replace("warmup_steps = 5", "warmup_steps = 1"));
    let _ = std::fs::remove_dir_all(place.path("sized"));
    let said = place.json(&["inspect", "sized.toml"])["training_memory"].as_f64().unwrap();
    let ran = place.json(&["train", "sized.toml", "--out", "sized"]);
    [said, ran["peak_memory"].as_f64().unwrap()]
}

/// Compared with a minimal run: the parts of the model, of the micro-batch, and of the low-bit layers.
#[cfg(target_os = "linux")]
#[test]
fn training_takes_what_it_is_said_to_need() {
    let place = Place::new();
    let heads = "num_hidden_layers = 4\nnum_attention_heads = 4\nnum_key_value_heads = 2";
    let shape =
        |hidden: usize, inner: usize| format!("{heads}\nhidden_size = {hidden}\nintermediate_size = {inner}");
    let batch =
        |samples: usize| format!("steps = 1\nbatch_size = {samples}\naccumulation = 1\nsequence_length = 64");
    let nothing = said_and_held(&place, &shape(16, 32), &batch(1));
    for (model, training) in [
        (shape(64, 128), batch(300)),
        (shape(384, 1280), batch(1)),
        (shape(256, 512) + "\nbit_linear = \"bitskip-v1\"", batch(48)),
        (shape(256, 512), batch(48) + "\nprecision = \"bf16\""),
    ] {
        let [said, held] = said_and_held(&place, &model, &training);
        let [said, held] = [said - nothing[0], held - nothing[1]];
        assert!(said > 7e7, "enough to tell: {said}");
        assert!((held / said - 1.0).abs() < 0.15, "{said} said, {held} held: {model}, {training}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_no_machine_has_is_one_line_with_both_numbers() {
    let place = Place::new();
    let numbers = "GB are available";
    // A micro-batch; again nothing is prepared first.
    place.recipe("large.toml", "sequence_length = 32", "sequence_length = 32\nprecision = \"bf16\"");
    let text = String::from_utf8(place.read("large.toml"))
        .unwrap()
        .replace("batch_size = 2", "batch_size = 16777216");
    let text = text.replace("num_hidden_layers = 4", "num_hidden_layers = 400");
    place.write("large.toml", &text);
    let said = ["large.toml: training needs about", numbers, "lower training.batch_size"];
    place.run(&["train", "large.toml"]).assert_error(2, &said);
    let stories = "train = \"train.txt\"\ntokenizer = \"gpt2\"";
    place.write("large.toml", text.replace("corpus = \"corpus\"", stories));
    place.run(&["train", "large.toml"]).assert_error(2, &said);
    assert!(!place.path("runs").exists(), "refused before the corpus was prepared");

    // Made-up weights.
    let config = r#"{"model_type": "llama", "hidden_size": 65536, "intermediate_size": 65536, "num_hidden_layers": 100,
        "num_attention_heads": 512, "num_key_value_heads": 512, "vocab_size": 1000, "max_position_embeddings": 512}"#;
    place.write("config.json", config);
    let bench = ["bench", "--config", "config.json", "--exits", "1", "--runs", "1"];
    place.run(&bench).assert_error(2, &["the model's weights", "GB of memory are needed", numbers]);
    let sweep = ["sweep", "--config", "config.json", "--agree-at", "4", "--acceptance", "0.8"];
    place.run(&sweep).assert_error(2, &["the model's weights", "GB of memory are needed", numbers]);

    // A cache for a context of a billion tokens.
    let context = "max_position_embeddings = 1073741824\nhead_dim = 128";
    place.recipe("long.toml", "max_position_embeddings = 64", context);
    let text = String::from_utf8(place.read("long.toml")).unwrap().replace("steps = 30", "steps = 5");
    place.write("long.toml", text);
    place.good(&["train", "long.toml", "--out", "long"]);
    let generate = ["generate", "long", "--prompt", "The heron", "--max-new-tokens", "1073000000"];
    place.run(&generate).assert_error(2, &["a cache of 10730", "GB of memory are needed", "fewer tokens"]);
    // A run that fits is unaffected.
    place.good(&["generate", "long", "--prompt", "The heron", "--max-new-tokens", "3"]);
}
