//! Number formats: chosen while loading, written to a folder, measured.

use crate::place::{LAYERS, Place};

const MISTAKE: i32 = 2;

#[test]
fn a_quantized_folder_is_a_model_like_any_other() {
    let place = Place::trained();
    let made =
        place.json(&["quantize", "run", "--to", "int4", "--head-format", "int8", "--out", "small/int4"]);
    assert_eq!((&made["layers"], &made["head"]), (&"int4".into(), &"int8".into()));
    let [before, after] = ["bytes_before", "bytes_after"].map(|key| made[key].as_u64().unwrap());
    assert!(after < before, "{made}"); // rows of 16 fill a quarter of a block

    let inside = place.json(&["inspect", "small/int4"]);
    let formats = &inside["weights"]["formats"];
    assert!(formats["INT4"].as_u64() > Some(0) && formats["INT8"].as_u64() > Some(0), "{inside}");
    assert!(inside["weights"]["bits_per_weight"].as_f64().unwrap() < 32.0);
    assert!(place.good(&["inspect", "small/int4"]).contains("bits a weight: "));

    let scores = |model: &[&str]| {
        let answer = place.json(&[&["eval", "--data", "valid.txt"], model].concat());
        answer["exits"][LAYERS - 1]["perplexity"].as_f64().unwrap()
    };
    let close = |one: f64, other: f64| (one / other - 1.0).abs() < 0.01;
    // As good as the same formats chosen while loading; the folder's embedding is in bf16.
    let loaded = scores(&["run", "--format", "int4", "--head-format", "int8"]);
    assert!(close(scores(&["small/int4"]), loaded));
    let (full, half) = (scores(&["run"]), scores(&["run", "--format", "bf16", "--kv-cache", "f16"]));
    assert!(close(half, full) && half != full && half != loaded, "{full} {half} {loaded}");

    let generate = |model: &str| {
        let told = place.good(&["generate", model, "--prompt", "The heron", "--max-new-tokens", "9"]);
        assert!(told.starts_with("The heron") && told.len() > 12, "{told}");
    };
    generate("small/int4");
    let told = place.good(&["quantize", "small/int4", "--to", "bf16", "--out", "back"]);
    assert!(told.starts_with("back: bf16; ") && told.contains(" became "), "{told}");
    generate("back");
}

#[test]
fn a_shape_is_measured_in_every_format() {
    let place = Place::new();
    let tokens = ["--prompt-tokens", "80", "--new-tokens", "3", "--runs", "1", "--exits", "2,4"];
    let bench = ["bench", "--config", "recipe.toml", "--format", "f32,int4", "--head-format", "int8"];
    let answer = place.json(&[&bench[..], &tokens].concat());
    let reports = answer["reports"].as_array().unwrap();
    assert_eq!(reports.len(), 2);
    for (report, layers) in reports.iter().zip(["f32", "int4"]) {
        assert_eq!(
            (&report["formats"]["layers"], &report["formats"]["head"]),
            (&layers.into(), &"int8".into())
        );
        assert!(
            report["memory"]["weights"].as_u64() > Some(0) && report["memory"]["kv_cache"].as_u64() > Some(0)
        );
        assert!(report["bandwidth"]["median"].as_f64() > Some(1e8));
        assert_eq!(report["exits"].as_array().unwrap().len(), 2);
        for exit in report["exits"].as_array().unwrap() {
            let samples = exit["decode_samples"].as_array().unwrap();
            let counted = samples.iter().filter(|sample| sample["counted"] == true).count();
            assert_eq!(samples.len(), counted + exit["repeated"].as_u64().unwrap() as usize);
            assert_eq!(exit["steady"], counted > 0);
            assert!(
                exit["verify"]["median"].as_f64() > Some(0.0) && exit["decode"]["min"].as_f64() > Some(0.0)
            );
        }
        assert!(
            report["exits"][0]["bytes_per_token"].as_u64() < report["exits"][1]["bytes_per_token"].as_u64()
        );
        assert_eq!(report["exits"][1]["speed_up"], 1.0);
        // The exits take turns between the same two probes.
        let probes = |exit: usize| {
            let samples = report["exits"][exit]["decode_samples"].as_array().unwrap().iter();
            samples
                .map(|s| [&s["bandwidth_before"], &s["bandwidth_after"]].map(ToString::to_string))
                .collect::<Vec<_>>()
        };
        assert_eq!(probes(0), probes(1));
    }
    let bytes = |report: usize| reports[report]["exits"][1]["bytes_per_token"].as_u64().unwrap();
    assert!(bytes(1) < bytes(0));
}

#[test]
fn the_memory_alone_is_probed() {
    let answer = Place::empty().json(&["bench", "--probe", "--threads", "1"]);
    assert_eq!(answer["threads"], 1);
    let [min, median] = ["min", "median"].map(|key| answer["bandwidth"][key].as_f64().unwrap());
    assert!(1e8 < min && min <= median && median < 1e13, "{answer}");
}

#[test]
fn formats_that_cannot_be() {
    let place = Place::trained();
    place.good(&["quantize", "run", "--to", "int8", "--out", "int8"]);
    for (arguments, expected) in [
        (&["generate", "run", "--format", "q4"][..], &["q4", "f32, bf16, int8, int4"][..]),
        (&["eval", "run", "--data", "valid.txt", "--kv-cache", "int8"], &["int8", "f32, f16"]),
        (&["bench", "run", "--format", "int8,none"], &["none", "int4"]),
        (&["bench", "run", "--config", "recipe.toml"], &["--config"]),
        (&["bench", "run", "--probe"], &["--probe"]),
        (&["bench", "--config", "nowhere.toml"], &["nowhere.toml"]),
        (&["quantize", "run", "--to", "int3", "--out", "other"], &["int3", "int4"]),
        (&["quantize", "run", "--to", "int4"], &["--out"]),
        (&["quantize", "nowhere", "--to", "int4", "--out", "other"], &["nowhere"]),
        (&["quantize", "run", "--to", "int4", "--out", "int8"], &["int8", "already"]),
        (&["quantize", "int8", "--to", "int4", "--out", "other"], &["int8"]),
        (&["generate", "int8", "--format", "int4"], &["int8"]),
        (
            &["quantize", "run", "--to", "q8_0", "--out", "other"],
            &["never in q8_0", "`offramp export", "q8_0`"],
        ),
        (&["quantize", "run", "--to", "bf16", "--head-format", "q4_0", "--out", "other"], &["never in q4_0"]),
    ] {
        place.run(arguments).assert_error(MISTAKE, expected);
    }
    assert!(!place.path("other").exists());
}

/// What `inspect` says of a file, and that it is what runs.
#[test]
fn a_files_codes_run_as_they_are() {
    let place = Place::new();
    for (kind, layers) in [("q8_0", "q8_0"), ("q4_0", "q4_0"), ("bf16", "bf16")] {
        let file = format!("{kind}.gguf");
        place.good(&["export", "--gguf", &file, "--type", kind]);
        let said = place.good(&["inspect", &file]);
        let runs = match kind {
            "bf16" => "BF16 runs as it is".to_owned(),
            codes => format!("{} runs in the file's codes, as {codes}\n", codes.to_uppercase()),
        };
        assert!(said.contains(&runs), "{said}");
        let answer = place.json(&["inspect", &file]);
        let of_layers = answer["weights"]["runs"].as_array().unwrap();
        let of_layers = of_layers.iter().find(|runs| runs["stored"] == kind.to_uppercase().as_str()).unwrap();
        let kept = if kind == "bf16" { "values" } else { "codes" };
        assert_eq!((&of_layers["format"], &of_layers["as"]), (&layers.into(), &kept.into()), "{answer}");
        // As it is, and as the file says.
        let told = |more: &[&str]| {
            let words = [
                "generate",
                &file,
                "--prompt",
                "Once upon a time",
                "--max-new-tokens",
                "12",
                "--temperature",
                "0",
            ];
            place.json(&[&words[..], more].concat())["text"].clone()
        };
        assert_eq!(told(&[]), told(&["--format", layers]), "{kind}");
        assert_eq!(told(&[]), told(&["--speculate", "auto"]), "{kind}");
    }
    assert!(!place.good(&["inspect"]).contains("runs"), "a folder's weights are what they are");
}

/// Twice as many threads as processors keep them busy.
#[cfg(target_os = "linux")]
#[test]
fn a_busy_machine_is_said_to_be_busy() {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let place = Place::new();
    let bench = ["bench", "--config", "recipe.toml", "--exits", "2,4", "--runs", "1", "--verify", "0"];
    let bench = [&bench[..], &["--prompt-tokens", "8", "--new-tokens", "3"]].concat();
    let done = AtomicBool::new(false);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let said = std::thread::scope(|scope| {
        for _ in 0..2 * processors {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    std::hint::black_box(0);
                }
            });
        }
        let said = std::panic::catch_unwind(|| place.good(&bench));
        done.store(true, Relaxed);
        said.expect("the bench")
    });
    assert!(said.contains("the machine was busy: other programs took "), "{said}");
}

/// A GGUF file has no place for adapters of exits: the command says so, and writes the model under them.
#[test]
fn adapters_stay_with_their_folder() {
    let place = Place::trained();
    let recipe = "[data]\ncorpus = \"corpus\"\n[start]\ncheckpoint = \"run\"\ntrain = \"exit_adapters\"\n\
                  [training]\nsteps = 3\nbatch_size = 2\naccumulation = 1\nsequence_length = 32\n\
                  [schedule]\nwarmup_steps = 1\n[layer_dropout]\nshape = \"none\"\n";
    place.write("adapters.toml", recipe);
    place.good(&["train", "adapters.toml", "--out", "adapted"]);
    let told = |model: &str| {
        let out = format!("{model}.gguf");
        let ran = place.run(&["export", model, "--gguf", &out, "--type", "f32"]);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let words =
            ["generate", &out, "--prompt", "The heron", "--max-new-tokens", "12", "--temperature", "0"];
        (ran.stderr.contains("adapters of its exits are left out"), place.json(&words)["text"].clone())
    };
    let (with, without) = (told("adapted"), told("run"));
    assert_eq!((with.0, without.0), (true, false));
    assert_eq!(with.1, without.1);
}
