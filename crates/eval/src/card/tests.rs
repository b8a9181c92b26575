//! A card shows the measurements, and for each missing one the command.

use super::*;
use crate::{ExitScore, GradNorm, Spread};
use offramp_model::journal::{ExitLoss, Journal, Record, StartRecord, StepRecord, ValidationRecord};
use offramp_model::{BitLinear, Family, Format, ModelType, Quantization};
use std::path::Path;

const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 4,
    "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 1300, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
    "early_exit": {"curriculum": "all", "early_exit_loss_scale": 0.3, "layer_dropout": "linear",
    "layer_dropout_max": 0.25}}"#;

fn config() -> Config {
    Config::from_json(CONFIG, Path::new("config.json")).unwrap()
}

fn score(exit_layer: usize) -> ExitScore {
    let perplexity = 40.0 - 5.0 * exit_layer as f64 + 0.125;
    let (bits_per_byte, agreement) = (1.5 - 0.1 * exit_layer as f64, exit_layer as f64 / 4.0);
    let (tokens, bytes, nats_per_token) = (12_345, 50_000, perplexity.ln());
    ExitScore { exit_layer, tokens, bytes, nats_per_token, perplexity, bits_per_byte, agreement }
}

fn measured() -> Measured {
    let spread = |median: f64| Spread { median, min: median - 10.0, max: median + 10.0 };
    let exit = |exit_layer: usize| ExitSpeedFigures {
        exit_layer,
        prefill: spread(9000.0),
        decode: spread(8000.0 / exit_layer as f64),
        speed_up: 4.0 / exit_layer as f64,
    };
    let speed = SpeedFigures {
        processor: Some("A processor".to_owned()),
        kernels: "avx2".to_owned(),
        threads: 1,
        formats: "bf16".to_owned(),
        prompt_tokens: 32,
        new_tokens: 16,
        runs: 3,
        exits: (1..=4).map(exit).collect(),
    };
    Measured {
        version: "1.2.3".to_owned(),
        validation: Some(Scores { data: "valid.txt".to_owned(), exits: (1..=4).map(score).collect() }),
        untouched: Some(Scores { data: "held-back.txt".to_owned(), exits: vec![score(4)] }),
        speed: Some(speed),
    }
}

fn report() -> TrainingReport {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    report_steps(&mut journal);
    let exits = vec![ExitLoss { exit_layer: 2, loss: 3.5 }, ExitLoss { exit_layer: 4, loss: 3.25 }];
    journal.append(&Record::Validation(ValidationRecord { step: 10, exits, bits_per_byte: 1.25 })).unwrap();
    TrainingReport::read(&path).unwrap().unwrap()
}

fn report_steps(journal: &mut Journal) {
    for step in 1..=10 {
        let record = StepRecord {
            step,
            tokens: 1000 * step,
            loss: 5.0,
            final_loss: 3.0,
            exit_losses: Vec::new(),
            grad_norm: step as f64,
            learning_rate: 1e-3 * step as f64,
            activation_bits: None,
            tokens_per_second: 500.0,
        };
        journal.append(&Record::Step(record)).unwrap();
    }
}

fn card<'a>(config: &'a Config, measured: Measured, training: Option<&'a TrainingReport>) -> Card<'a> {
    let facts = Facts {
        license: Some("mit".to_owned()),
        dataset: Some("roneneldan/TinyStories".to_owned()),
        language: Some("en".to_owned()),
    };
    let weights = ("BF16".to_owned(), 43_210);
    let (name, place) = ("small: one", "models/small");
    Card {
        name,
        place,
        config,
        weights,
        facts,
        measured,
        exits: &[2, 4],
        training,
        recipe: training.map(|_| "[data]\n"),
        gguf: None,
    }
}

#[track_caller]
fn assert_has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|found| found == *line), "{line:?} is missing in\n{text}");
    }
}

#[test]
fn what_was_found_stands_in_it() {
    let (config, report) = (config(), report());
    let text = card(&config, measured(), Some(&report)).markdown();
    assert_has(
        &text,
        &[
            "license: \"mit\"",
            "- \"roneneldan/TinyStories\"",
            "pipeline_tag: text-generation",
            "- name: \"small: one\"",
            "# small: one",
            "| 4 (all) | 20.12 | 1.100 | 100.0 % | 2,000 (1,990–2,010) | 1.00× |",
            "| 2 | 30.12 | 1.300 | 50.0 % | 4,000 (3,990–4,010) | 2.00× |",
            "![Perplexity and tokens per second at every exit](exits.svg)",
            "| parameters | 23,176 |",
            "| weights | BF16, 43,210 bytes |",
            "| tokens seen | 10,000 |",
            "| peak learning rate | 1.0e-2 |",
            "| final loss (full model, smoothed, nats per token) | 3.000 |",
            "| 99th percentile | 10.00 |",
            "| last validation, nats per token at exit layers | 3.500 at 2, 3.250 at 4 |",
            "model.set_exit_layer(2)",
            "for exit_layer in [1, 2, 3, 4]:",
            "offramp generate models/small --prompt \"Once upon a time\" --exit-layer 2",
        ],
    );
    assert!(
        text.contains("(held-back.txt, 12,345 tokens)") && text.contains("1 thread, avx2 (A processor)"),
        "{text}"
    );
    assert!(!text.contains("TBD") && !text.contains(": run `"), "{text}");
    // 1.7 times the full model's perplexity at the first exit gives no warning; 5 times does.
    let mut worse = measured();
    worse.validation.as_mut().unwrap().exits[0].perplexity = 100.0;
    let warned = card(&config, worse, Some(&report)).markdown();
    assert!(!text.contains("of little use") && warned.contains("of little use: at exit layer 1"), "{warned}");
    assert_eq!(config.parameter_count(), 23_176, "the card's number is the config's");
}

/// A run that began from a model does not claim all of what that model knows, nor hide it.
#[test]
fn a_run_names_what_it_began_from() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("journal.jsonl");
    let mut journal = Journal::open(&path).unwrap();
    let start = |step, checkpoint: Option<&str>| {
        let (version, kernels) = ("0.1.0".to_owned(), "avx2".to_owned());
        let checkpoint = checkpoint.map(str::to_owned);
        let (threads, parameters, seed, unix_time) = (2, 1, 2, 3);
        Record::Start(StartRecord {
            step,
            version,
            kernels,
            threads,
            parameters,
            seed,
            unix_time,
            checkpoint,
        })
    };
    journal.append(&start(0, None)).unwrap(); // an earlier version's
    report_steps(&mut journal);
    journal.append(&start(10, Some("runs/first"))).unwrap();
    let (config, report) = (config(), TrainingReport::read(&path).unwrap().unwrap());
    let text = card(&config, measured(), Some(&report)).markdown();
    assert_has(&text, &["| begun from | runs/first |", "| tokens seen | 10,000 |"]);
    let learnt =
        "10,000 tokens of roneneldan/TinyStories, after what runs/first had learnt, and knows nothing else";
    assert!(text.contains(learnt), "{text}");
}

#[test]
fn what_was_not_found_is_a_command() {
    let config = config();
    let text = card(&config, Measured::default(), None).markdown();
    assert_has(
        &text,
        &[
            "| 4 (all) | – | – | – | – | – |",
            "Perplexity was not measured: run `offramp card models/small --data FILE`.",
            "Speed was not measured: run `offramp card models/small --runs 5`.",
            "No journal was found: run `offramp card models/small --run RUN_FOLDER`.",
        ],
    );
    assert!(!text.contains("model-index") && !text.contains("exits.svg") && !text.contains("TBD"), "{text}");
}

/// The Hub rejects a front matter that is not YAML: every line is a key, an item or a JSON value.
#[test]
fn the_front_matter_lists_each_result_once() {
    let config = config();
    let card = card(&config, measured(), None);
    let text = front_matter::yaml(&card);
    assert!(text.starts_with("---\n") && text.ends_with("\n---\n") && text.matches("---\n").count() == 2);
    for name in ["perplexity, exit layer 2", "bits/byte, exit layer 4", "decode tokens/s, exit layer 4"] {
        let expected = if name.ends_with("4") && name.starts_with("bits") { 2 } else { 1 }; // once on untouched text
        assert_eq!(text.matches(&format!("name: \"{name}\"")).count(), expected, "{name}\n{text}");
    }
    assert!(!text.contains("exit layer 3"), "only the table's exits\n{text}");
    let is_yaml = |line: &str| {
        line == "---" || line.trim_start().starts_with("- ") || line.contains(": ") || line.ends_with(':')
    };
    assert!(text.lines().all(is_yaml), "{text}");
}

#[test]
fn a_quantized_folder_is_not_shown_to_transformers() {
    let quantization = Some(Quantization { layers: Format::Int8, head: Format::Int8, weight_scale: None });
    let config = Config { quantization, ..config() };
    let text = card(&config, measured(), None).markdown();
    assert!(text.contains("quantize --to bf16") && !text.contains("from_pretrained"), "{text}");
    assert!(!text.contains("library_name"), "{text}");
}

/// Read as a Llama, it would be another model.
#[test]
fn a_ternary_folder_is_not_shown_as_a_llama() {
    for (bit_linear, said) in [(BitLinear::V1, "`BitNetForCausalLM`"), (BitLinear::V2, "refuses this folder")]
    {
        let config = Config { bit_linear: Some(bit_linear), ..config() };
        let text = card(&config, measured(), None).markdown();
        assert!(text.contains(said) && !text.contains("from_pretrained"), "{text}");
    }
}

#[test]
fn another_family_is_shown_as_its_own_class() {
    let family = Family { model_type: ModelType::Qwen3, ..Family::default() };
    let config = Config { family, ..config() };
    let card = card(&config, measured(), None);
    let text = card.markdown();
    assert!(
        text.contains("\nA Qwen3 of ") && text.contains("the stock Qwen3 class loads the same"),
        "{text}"
    );
    let (class, code) = card.modeling();
    assert_eq!(class, "EarlyExitQwen3ForCausalLM");
    assert!(
        code.contains("from transformers import Qwen3ForCausalLM\n") && !code.contains("LlamaForCausalLM")
    );
    assert!(code.contains("class EarlyExitQwen3ForCausalLM(Qwen3ForCausalLM):"), "{code}");
}

/// Quoted in shell commands and in Python.
#[test]
fn a_place_of_any_name_is_quoted() {
    let config = config();
    let text = Card { place: "my \"runs\"/it's", ..card(&config, Measured::default(), None) }.markdown();
    for part in [
        r#"offramp generate 'my "runs"/it'\''s' --prompt "#,
        r#"`offramp card 'my "runs"/it'\''s' --data FILE`"#,
        r#"AutoModelForCausalLM.from_pretrained("my \"runs\"/it's", trust_remote_code=True)"#,
        r#"AutoTokenizer.from_pretrained("my \"runs\"/it's")"#,
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
}

/// A run that diverged, a text without a byte, a clock that stood still.
#[test]
fn what_there_is_no_number_of_is_a_dash() {
    let (config, mut report, mut measured) = (config(), report(), measured());
    let none = GradNorm { median: f64::NAN, percentile_99: f64::NAN, max: f64::INFINITY };
    (report.grad_norm, report.grad_norm_after_warmup, report.grad_norm_int4) = (none, none, Some(none));
    (report.smoothed_loss, report.seconds) = (f64::NAN, f64::INFINITY);
    report.tokens_per_second = Spread::of(vec![f64::NAN]);
    report.validation.iter_mut().flat_map(|record| &mut record.exits).for_each(|exit| exit.loss = f64::NAN);
    let scores = [&mut measured.validation, &mut measured.untouched].into_iter().flatten();
    for exit in scores.flat_map(|scores| &mut scores.exits) {
        (exit.perplexity, exit.bits_per_byte, exit.agreement) = (f64::INFINITY, f64::INFINITY, f64::NAN);
    }
    for exit in measured.speed.iter_mut().flat_map(|speed| &mut speed.exits) {
        (exit.decode, exit.speed_up) = (Spread::of(vec![f64::INFINITY]), f64::NAN);
    }
    let text = card(&config, measured, Some(&report)).markdown();
    for word in text.split(|c: char| !c.is_alphanumeric()) {
        assert!(!["nan", "inf", "null"].contains(&word.to_lowercase().as_str()), "{text}");
    }
    assert!(!text.contains(&u64::MAX.to_string()) && !text.contains("18,446,744"), "{text}");
    assert_has(&text, &["| 4 (all) | – | – | – | – (–––) | – |", "| training tokens/s, median | – |"]);
}
