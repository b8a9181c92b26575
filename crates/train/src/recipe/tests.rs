//! Recipes: defaults, faults in one line, and the ones that are shipped.

use super::*;
use crate::error::Result;
use offramp_model::BitLinear;
use std::path::{Path, PathBuf};

const DATA: &str = "[data]\ncorpus = \"c\"\n";

fn parse(text: &str) -> Result<Recipe> {
    Recipe::from_toml(text, Path::new("r.toml"))
}

#[track_caller]
fn assert_fault(text: &str, expected: &str) {
    let message = parse(text).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    assert!(message.starts_with("r.toml") && message.contains(expected), "{message:?}, not {expected:?}");
}

/// Everything that the recipe does not say is the model card's.
#[test]
fn defaults_are_the_card() {
    let recipe = parse(DATA).unwrap();
    assert_eq!(recipe.config(50_257, Some(50_256)).unwrap().parameter_count(), 1_061_591_040);
    assert_eq!(recipe.training.batch_size * recipe.training.accumulation, 64);
    assert_eq!((recipe.training.steps, recipe.training.sequence_length), (50_000, 512));
    assert_eq!(recipe.optimizer.betas, [0.9, 0.95]);
    assert_eq!((recipe.optimizer.learning_rate, recipe.optimizer.clip), (6e-4, 1.0));
    assert_eq!((recipe.schedule.warmup_steps, recipe.schedule.final_fraction), (1000, 0.1));
    assert_eq!((recipe.early_exit.loss_scale, recipe.early_exit.curriculum), (0.3, Curriculum::All));
    assert_eq!(
        (recipe.layer_dropout.shape, recipe.layer_dropout.normalize),
        (DropoutShape::Quadratic, DropoutNormalize::Sum)
    );
}

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")).collect()
}

/// The sizes of Llama-3.2-1B, which a recipe begins from.
const LLAMA_3_2_1B: &str = r#"{"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
    "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64,
    "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 500000.0,
    "tie_word_embeddings": true, "eos_token_id": 128001}"#;

#[test]
fn every_shipped_recipe_can_be_run() {
    let checkpoint = tempfile::tempdir().unwrap();
    std::fs::write(checkpoint.path().join("config.json"), LLAMA_3_2_1B).unwrap();
    let folder = checkpoint.path().to_str().unwrap();
    let carried = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/tinystories-24");
    let shipped = shipped();
    assert!(shipped.len() >= 6, "{shipped:?}");
    for path in shipped {
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("models/Llama-3.2-1B\"", &format!("{folder}\""));
        // What another recipe trains has the shape of the model that came of it.
        let further = text.contains("\"runs/tinystories-24");
        let text = ["runs/tinystories-24", "runs/tinystories-24-exits"]
            .into_iter()
            .fold(text, |text, run| text.replace(&format!("\"{run}\""), &format!("\"{carried}\"")));
        let recipe = Recipe::from_toml(&text, &path).unwrap();
        let vocabulary = recipe.data.vocab_size.unwrap_or(if further { 3264 } else { 50_257 });
        recipe.config(vocabulary, Some(0)).unwrap();
    }
}

#[test]
fn low_bit_keys_are_checked() {
    let v2 = "[model]\nbit_linear = \"bitskip-v2\"\n";
    for (keys, expected) in [
        ("[model]\nbit_linear = \"bitskip-v4\"", "\"bitskip-v4\" is not one of \"bitskip-v1\""),
        (
            "[schedule]\nint4_from = 0.5",
            "schedule.int4_from is 0.5: it must be left out unless model.bit_linear",
        ),
        (
            &format!("{v2}[schedule]\nint4_from = 0.95"),
            "int4_from is 0.95: it must be 0 to 0.9: activations have 4",
        ),
        (&format!("{v2}[schedule]\nint4_from = -0.1"), "schedule.int4_from is -0.1"),
        ("[schedule]\nsecond_stage = 1.5", "schedule.second_stage is 1.5: it must be a share"),
        ("[schedule]\nsecond_stage = 0.5\nsecond_fraction = 2.0", "schedule.second_fraction is 2"),
        (
            "[schedule]\nsecond_fraction = 0.5",
            "second_fraction is 0.5: it must be left out unless schedule.second",
        ),
        ("[optimizer]\nsecond_weight_decay = 0.0", "second_weight_decay is 0: it must be left out unless"),
        (
            &format!("{v2}intermediate_size = 96"),
            "intermediate_size is 96: it must be such that it is a power",
        ),
        ("[model]\nbit_linear = \"bitskip-v1\"\nhead_dim = 32", "head_dim is 32"),
    ] {
        assert_fault(&format!("{DATA}{keys}"), expected);
    }
    let recipe = parse(&format!("{DATA}{v2}[schedule]\nint4_from = 0.9")).unwrap();
    assert_eq!(recipe.config(50_257, None).unwrap().bit_linear, Some(BitLinear::V2));
}

#[test]
fn a_recipe_makes_any_family() {
    let model = |keys: &str| {
        let recipe = parse(&format!("{DATA}[model]\n{keys}")).unwrap();
        recipe.config(50_257, None).unwrap()
    };
    let plain = model("");
    assert_eq!(plain.family, offramp_model::Family::default());
    let named = |keys: &str, part: &str| {
        model(keys).tensors().iter().filter(|spec| spec.name.ends_with(part)).count()
    };
    assert_eq!(named("model_type = \"qwen2\"", "_proj.bias"), 3 * 24);
    assert_eq!(named("attention_bias = true\nmlp_bias = true", "_proj.bias"), 7 * 24);
    assert_eq!(named("model_type = \"qwen3\"", "k_norm.weight"), 24);
    let mistral = model("model_type = \"mistral\"\nsliding_window = 128");
    assert!((0..24).all(|layer| mistral.layer_attention(layer).window == Some(128)));
    let smollm3 = model("model_type = \"smollm3\"\nno_rope_layer_interval = 4");
    let still: Vec<usize> = (0..24).filter(|&layer| !smollm3.layer_attention(layer).rotates).collect();
    assert_eq!(still, [3, 7, 11, 15, 19, 23]);
}

#[test]
fn families_that_cannot_be_are_refused() {
    for (keys, expected) in [
        (
            "bit_linear = \"bitskip-v1\"\nattention_bias = true",
            "model.attention_bias is true: it must be left out where model.bit_linear",
        ),
        (
            "bit_linear = \"bitskip-v2\"\nmlp_bias = true",
            "model.mlp_bias is true: it must be left out where model.bit_linear",
        ),
        (
            "bit_linear = \"bitskip-v3\"\nmodel_type = \"qwen3\"",
            "model.model_type is \"qwen3\": it must be \"llama\" where model.bit_linear",
        ),
        ("sliding_window = 8", "left out unless model.model_type is \"mistral\""),
        ("model_type = \"mistral\"\nsliding_window = 0", "model.sliding_window is 0: it must be 1 or more"),
        ("no_rope_layer_interval = 4", "left out unless model.model_type is \"smollm3\""),
        ("model_type = \"mistrall\"", "did you mean \"mistral\"?"),
        ("model_type = \"mistral\"\nmlp_bias = true", "mlp_bias"),
    ] {
        assert_fault(&format!("{DATA}[model]\n{keys}"), expected);
    }
}

/// LayerSkip's presets give its own weights and probabilities, by its formulas.
#[test]
fn layerskips_recipe_is_layerskips() {
    let path = shipped().into_iter().find(|path| path.ends_with("layerskip-scratch.toml")).unwrap();
    let recipe = Recipe::read(&path).unwrap();
    let (first, last) = (0, recipe.training.steps - 1);
    let dropout = crate::dropout::LayerDropout::new(&recipe).unwrap();
    assert_eq!((dropout.probability(first, 23), dropout.scale(last, 23)), (0.0, 1.0));
    assert!((dropout.probability(last, 23) - 0.1).abs() < 1e-12);
    assert!((dropout.probability(last, 12) - 0.1 * ((12.0f64 / 23.0).exp2() - 1.0)).abs() < 1e-12);
    let exits = crate::early_exit::EarlyExitLoss::new(&recipe).exits(11);
    // e(11) = 0.2 · 66 and e(23) = 23 + 0.2 · 253 over their sum.
    let (early, last) = (0.2 * 66.0, 23.0 + 0.2 * 253.0);
    assert_eq!(exits.iter().map(|exit| exit.0).collect::<Vec<_>>(), [12, 24]);
    assert!((exits[0].1 - early / (early + last)).abs() < 1e-12, "{exits:?}");
}

/// The card's recipe writes out what the defaults are, and makes the card's model.
#[test]
fn the_cards_recipe_is_the_card() {
    let path = shipped().into_iter().find(|path| path.ends_with("llama3-earlyexit.toml")).unwrap();
    let card = Recipe::read(&path).unwrap();
    let config = card.config(50_257, Some(50_256)).unwrap();
    assert_eq!(config.parameter_count(), 1_061_591_040);
    assert_eq!((config.num_hidden_layers, config.head_dim, config.vocab_size), (24, 64, 50_257));
    let block = config.early_exit.unwrap();
    assert_eq!((block.early_exit_loss_scale, block.curriculum.as_str()), (0.3, "all"));
    assert!((block.layer_dropout_max - 484.0 / 3795.0).abs() < 1e-12);
    let mut defaults = parse(DATA).unwrap();
    // The vocabulary's size and how often is looked are the file's own.
    defaults.model.vocab_size = card.model.vocab_size;
    (defaults.validation, defaults.checkpoint) = (card.validation.clone(), card.checkpoint.clone());
    assert_eq!(card.difference(&defaults), None);
}

#[test]
fn a_typo_is_answered_with_the_nearest_key() {
    for (text, expected) in [
        (
            "[optimizer]\nlearing_rate = 1.0",
            "line 4: [optimizer] has no key learing_rate: did you mean learning_rate?",
        ),
        ("[optimizer]\n\nlr_peak = 1\n", "line 5: [optimizer] has no key lr_peak"),
        ("[training]\nlearning_rate = 1.0", "[training] has no key learning_rate: it belongs in [optimizer]"),
        ("[model]\nhiden_size = 1", "did you mean hidden_size?"),
        ("[modle]\nhidden_size = 1", "there is no section [modle]: did you mean [model]?"),
        (
            "[serving]\nport = 1",
            "there is no section [serving]: the sections are model, start, data, training,",
        ),
        (
            "[layer_dropout]\nshape = \"quadratc\"",
            "layer_dropout.shape: \"quadratc\" is not one of \"none\", \"quadratic\"",
        ),
        ("[layer_dropout]\nshape = \"quadratc\"", "did you mean \"quadratic\"?"),
        ("[early_exit]\ncurriculum = \"gradually\"", "is not one of \"none\", \"all\", \"rotational\""),
        ("learning_rate = 1", "there is no section [learning_rate]"),
    ] {
        let text = match text.starts_with('[') {
            true => format!("{DATA}{text}"),
            false => format!("{text}\n{DATA}"),
        };
        assert_fault(&text, expected);
    }
}

#[test]
fn a_wrong_type_names_key_and_line() {
    for (text, expected) in [
        (
            "[training]\nsteps = \"many\"",
            "line 4: training.steps: invalid type: string \"many\", expected u64",
        ),
        ("[training]\nsteps = -5", "training.steps: invalid value: integer `-5`"),
        ("[training]\nsteps = 1.5", "training.steps: invalid type: floating point `1.5`"),
        ("[optimizer]\nbetas = [0.9]", "optimizer.betas: invalid length 1"),
        ("[training\nsteps = 5", "line 3: "),
        ("[training]\nsteps = ", "line 4: "),
    ] {
        assert_fault(&format!("{DATA}{text}"), expected);
    }
}

/// A recipe may come from anywhere, and its fault goes to a terminal.
#[test]
fn what_a_recipe_holds_stays_in_the_line() {
    let long = "x".repeat(100_000);
    for text in [
        "[training]\n\"a\\r\\u001b[2Jb\" = 1",
        "[\"two\\nlines\"]",
        "[layer_dropout]\nshape = \"a\\u009b2Jb\"",
        "[training]\nsteps = \"a\\u007fb\"",
        &format!("[training]\n{long} = 1"),
        &format!("[training]\nsteps = \"{long}\""),
        &format!("[layer_dropout]\nshape = \"{long}\""),
    ] {
        let message = parse(&format!("{DATA}{text}")).unwrap_err().to_string();
        assert!(!message.contains(char::is_control) && message.len() < 1000, "{message:?}");
    }
    assert_fault(&format!("{DATA}[training]\nsteps = \"{long}\""), "expected u64");
}

#[test]
fn impossible_values_are_named() {
    for (text, expected) in [
        ("[training]\nsteps = 0", "training.steps is 0: it must be 1 to"),
        ("[training]\nbatch_size = 0", "training.batch_size is 0"),
        ("[training]\nbatch_size = 16777217", "training.batch_size is 16777217: it must be 1 to 16777216"),
        ("[training]\nsequence_length = 513", "at most model.max_position_embeddings, 512"),
        ("[training]\nsteps = 10", "schedule.warmup_steps is 1000: it must be at most training.steps, 10"),
        ("[optimizer]\nlearning_rate = 0.0", "optimizer.learning_rate is 0"),
        ("[optimizer]\nlearning_rate = nan", "optimizer.learning_rate is NaN"),
        ("[optimizer]\nbetas = [0.9, 1.0]", "optimizer.betas is 1"),
        ("[optimizer]\neps = 0.0", "optimizer.eps is 0"),
        ("[optimizer]\nclip = -1.0", "optimizer.clip is -1"),
        ("[optimizer]\nmatrices = \"muon\"\nmuon_momentum = 1.0", "optimizer.muon_momentum is 1"),
        ("[optimizer]\nmuon_momentum = 0.9", "left out unless optimizer.matrices is \"muon\""),
        ("[schedule]\nfinal_fraction = 1.5", "schedule.final_fraction is 1.5"),
        ("[layer_dropout]\np_max = 1.5", "layer_dropout.p_max is 1.5"),
        ("[early_exit]\nloss_scale = -0.1", "early_exit.loss_scale is -0.1"),
        ("[early_exit]\ncurriculum = \"rotational\"", "early_exit.period is left out"),
        (
            "[early_exit]\ncurriculum = \"rotational\"\nperiod = 24",
            "early_exit.period is 24: it must be 1 to 23",
        ),
        ("[early_exit]\nperiod = 4", "left out unless early_exit.curriculum is \"rotational\""),
        ("[early_exit]\ncurriculum = \"sampled\"", "early_exit.sample_fraction is left out"),
        ("[early_exit]\ncurriculum = \"sampled\"\nsample_fraction = 0.0", "above 0 and at most 1"),
        ("[early_exit]\nsample_fraction = 0.5", "left out unless early_exit.curriculum is \"sampled\""),
        ("[early_exit]\nunbiased = true", "early_exit.unbiased is true"),
        ("[averages]\nema_decay = 1.0", "averages.ema_decay is 1: it must be 0 or more and below 1"),
        (
            "[averages]\nswa_start = 50001",
            "averages.swa_start is 50001: it must be a step of the run, 1 to 50000",
        ),
        (
            "[early_exit]\nadapter_rank = 4",
            "early_exit.adapter_rank is given: it must be left out unless start.train",
        ),
        ("[averages]\nswa_every = 2", "left out unless averages.swa_start"),
        ("[averages]\nswa_start = 1\nswa_every = 0", "averages.swa_every is 0: it must be 1 or more"),
        ("[model]\nbit_linear = \"bitskip-v1\"\n[averages]\nema_decay = 0.9", "a mean of ternary weights"),
        ("[early_exit]\nteacher = \"final\"\nteacher_share = 0.0", "early_exit.teacher_share is 0"),
        ("[early_exit]\nteacher_share = 0.5", "left out unless early_exit.teacher is \"final\""),
        ("[early_exit]\nteacher_loss = \"lk\"", "early_exit.teacher_loss is given"),
        ("[early_exit]\nteacher = \"final\"\ncurriculum = \"none\"", "no exit learns"),
        ("[early_exit]\nteacher = \"first\"", "teacher"),
        ("[early_exit]\nweights = \"layerskip\"\nnormalize_weights = false", "divided by their sum"),
        ("[validation]\nexits = [6, 25]", "validation.exits is 25: it must be exit layers from 1 to 24"),
        ("[validation]\nexits = [0]", "validation.exits is 0"),
        ("[checkpoint]\nkeep = 0", "checkpoint.keep is 0"),
        ("[model]\nnum_key_value_heads = 5", "num_key_value_heads is 5"),
        ("[model]\nnum_attention_heads = 0", "num_attention_heads is 0"),
        ("[model]\nhidden_size = 0", "hidden_size is 0"),
        ("[model]\nnum_hidden_layers = 0", "num_hidden_layers is 0"),
        // Of layers that take gigabytes to count; a fuzzer's.
        ("[model]\nnum_hidden_layers = 111122208", "num_hidden_layers is 111122208"),
        ("[model]\ninitializer_range = 0.0", "model.initializer_range is 0"),
    ] {
        assert_fault(&format!("{DATA}{text}"), expected);
    }
}

#[test]
fn data_is_a_corpus_or_files_to_prepare() {
    for (text, expected) in [
        ("", "data.corpus is left out"),
        ("[data]\ncorpus = \"c\"\ntrain = \"t\"\ntokenizer = \"gpt2\"", "data.train"),
        ("[data]\ncorpus = \"c\"\ntokenizer = \"gpt2\"", "data.tokenizer"),
        ("[data]\ntrain = \"t\"", "data.tokenizer is left out"),
        ("[data]\ntrain = \"t\"\ntokenizer = \"bpe\"", "data.vocab_size is left out"),
        ("[data]\ntrain = \"t\"\ntokenizer = \"bpe\"\nvocab_size = 256", "data.vocab_size is 256"),
        ("[data]\ntrain = \"t\"\ntokenizer = \"gpt2\"\nvocab_size = 300", "unless data.tokenizer is \"bpe\""),
    ] {
        assert_fault(text, expected);
    }
    assert_fault(
        "[data]\ntrain = []\ntokenizer = \"gpt2\"",
        "data.train is []: it must be a file of stories",
    );
    for bad in ["7", "[\"t\", 7]", "true"] {
        let text = format!("[data]\ntrain = {bad}\ntokenizer = \"gpt2\"");
        assert_fault(&text, "line 2: data.train: invalid type");
    }
    let several = parse("[data]\ntrain = [\"a.txt\", \"b.parquet\"]\ntokenizer = \"gpt2\"").unwrap();
    assert_eq!(several.data.train.unwrap().0, [Path::new("a.txt"), Path::new("b.parquet")]);
    let one = parse("[data]\ntrain = \"a.txt\"\ntokenizer = \"gpt2\"").unwrap();
    assert_eq!(one.data.train.unwrap().0, [Path::new("a.txt")]);
    parse("[data]\ntrain = \"t\"\nvalid = \"v\"\ntokenizer = \"bpe\"\nvocab_size = 257").unwrap();
    parse("[data]\ntrain = \"t\"\ntokenizer = \"some/tokenizer.json\"").unwrap();
}

#[test]
fn the_vocabulary_is_the_tokenizers_or_larger() {
    let larger = parse(&format!("{DATA}[model]\nvocab_size = 50304")).unwrap();
    assert_eq!(larger.config(50_257, None).unwrap().vocab_size, 50_304);
    let message = larger.config(50_305, None).unwrap_err().to_string();
    assert!(
        message.contains("model.vocab_size is 50304: it must be at least the tokenizer's 50305"),
        "{message}"
    );
}

#[test]
fn the_first_difference_is_named_and_paths_are_none() {
    let (one, other) = (parse(DATA).unwrap(), parse("[data]\ncorpus = \"d\"\n# the same\n[model]").unwrap());
    assert_eq!(one.difference(&other), None);
    let given = |keys: &str| parse(&format!("{DATA}{keys}")).unwrap();
    let expected = |key: &str, now: &str, before: &str| {
        Some(Difference { key: key.to_owned(), now: now.to_owned(), before: before.to_owned() })
    };
    let (slower, dim) = (given("[optimizer]\nclip = 2.0"), given("[model]\nhead_dim = 64"));
    assert_eq!(slower.difference(&one), expected("optimizer.clip", "2.0", "1.0"));
    assert_eq!(dim.difference(&one), expected("model.head_dim", "64", "left out"));
    assert_eq!(one.difference(&dim), expected("model.head_dim", "left out", "64"));
}

#[test]
fn when_a_run_is_measured_and_saved_and_how_far_it_goes_may_change() {
    let given = |keys: &str| parse(&format!("{DATA}{keys}")).unwrap();
    let one = given("");
    for keys in [
        "[validation]\nexits = [3]\nevery = 7\nmax_tokens = 99",
        "[checkpoint]\nkeep = 9\nevery = 1",
        "[training]\nsteps = 60000",
    ] {
        assert_eq!(given(keys).difference(&one), None, "{keys}");
    }
    let shorter = given("[training]\nsteps = 40000").difference(&one);
    let expected = Difference { key: "training.steps".into(), now: "40000".into(), before: "50000".into() };
    assert_eq!(shorter, Some(expected));
}

#[test]
fn validation_is_at_the_quarters_or_as_asked_and_always_at_full_depth() {
    let exits = |layers: usize, keys: &str| {
        let text =
            format!("{DATA}[layer_dropout]\nshape = \"none\"\n[model]\nnum_hidden_layers = {layers}\n{keys}");
        parse(&text).unwrap().validation_exits()
    };
    assert_eq!(exits(24, ""), [6, 12, 18, 24]);
    assert_eq!(exits(6, ""), [1, 3, 4, 6]);
    assert_eq!(exits(3, ""), [1, 2, 3]);
    assert_eq!(exits(2, ""), [1, 2]);
    assert_eq!(exits(1, ""), [1]);
    assert_eq!(exits(24, "[validation]\nexits = []"), [24]);
    assert_eq!(exits(24, "[validation]\nexits = [24, 7, 3, 7]"), [3, 7, 24]);
}
