//! Speculation from outside: the text stays the same, the speed-up is measured, wrong arguments are reported.

use crate::place::{LAYERS, Place};

#[test]
fn a_text_is_the_same_however_it_is_drafted() {
    let place = Place::trained();
    let tell = |more: &[&str]| {
        let told =
            ["generate", "run", "--prompt", "The heron", "--max-new-tokens", "40", "--temperature", "1"];
        place.json(&[&told[..], more].concat())
    };
    let plain = tell(&[]);
    assert!(plain["speculation"].is_null());
    let heads: [&[&str]; 4] = [
        &[],
        &["--draft-head", "own"],
        &["--draft-head", "int4", "--draft-shortlist", "50"],
        &["--draft-shortlist", "20", "--draft-corpus", "valid.txt"],
    ];
    for how in ["auto", "1:3", "3:2", "off"] {
        for head in heads {
            for threads in ["1", "2"] {
                let told = tell(&[&["--speculate", how, "--threads", threads], head].concat());
                assert_eq!(told["tokens"], plain["tokens"], "{how}, {head:?}, threads {threads}");
                assert_eq!(told["speculation"].is_null(), how == "off");
                if how == "1:3" {
                    assert!(told["speculation"]["drafted"].as_u64().unwrap() > 0);
                }
            }
        }
    }
    assert_eq!(
        tell(&["--exit-layer", "3"])["tokens"],
        tell(&["--exit-layer", "3", "--speculate", "1:2"])["tokens"]
    );
}

#[test]
fn a_trace_is_the_text_with_marks() {
    let place = Place::trained();
    let tell = |more: &[&str]| {
        let told = ["generate", "run", "--max-new-tokens", "40", "--temperature", "0"];
        place.run(&[&told[..], more].concat())
    };
    let (plain, traced) = (tell(&[]), tell(&["--speculate", "2:4", "--trace"]));
    assert!(
        traced.stderr.contains("drafted and accepted") && traced.stderr.contains("rounds"),
        "{}",
        traced.stderr
    );
    assert_ne!(traced.stdout, plain.stdout);
    // Without colors, accepted tokens stand in brackets and corrected ones in braces.
    let marks = ['[', ']', '{', '}'];
    assert!(!plain.stdout.contains(marks), "{}", plain.stdout);
    assert_eq!(traced.stdout.replace(marks, ""), plain.stdout);
}

#[test]
fn verify_counts_texts_that_are_equal() {
    let place = Place::trained();
    let verify = ["verify", "run", "--data", "valid.txt", "--prompts", "5", "--prompt-tokens", "4"];
    let verify = [&verify[..], &["--max-new-tokens", "30", "--speculate", "auto,1:2,3:3"]].concat();
    let answer = place.json(&verify);
    let reports = answer["reports"].as_array().unwrap();
    assert_eq!(reports.len(), 2, "greedy and sampled");
    for report in reports {
        assert_eq!((&report["texts"], &report["equal"]), (&15.into(), &15.into()));
        assert!(report["accepted"].as_u64() <= report["drafted"].as_u64());
    }
    assert!(place.good(&verify).contains("15 of 15 texts equal"));
    place.run(&["verify", "run", "--prompt-tokens", "500"]).assert_error(2, &["500", "shorten"]);
}

/// For every depth and context: a model of one layer has no exit to draft with.
#[test]
fn what_nobody_says_fits_the_model() {
    let place = Place::trained();
    let ways = |run: &str| {
        let asked = ["verify", run, "--data", "valid.txt", "--prompts", "1", "--prompt-tokens", "4"];
        let asked = [&asked[..], &["--max-new-tokens", "6", "--temperature", "0"]].concat();
        place.json(&asked)["reports"][0]["ways"].clone()
    };
    let sweep = |run: &'static str| {
        ["sweep", run, "--data", "valid.txt", "--prompt-tokens", "4", "--lengths", "1", "--runs", "1"]
    };
    assert_eq!(ways("run"), serde_json::json!(["auto", "1:4", "2:2"]));
    let found = place.json(&sweep("run"));
    assert_eq!(found["report"]["new_tokens"], 60, "a context of 64, less 4 of the prompt");
    for (layers, expected) in [("2", serde_json::json!(["auto", "1:2"])), ("1", serde_json::json!(["auto"]))]
    {
        let to = format!("[layer_dropout]\nshape = \"none\"\n[model]\nnum_hidden_layers = {layers}");
        place.recipe(&format!("{layers}.toml"), "[model]\nnum_hidden_layers = 4", &to);
        place.good(&["train", &format!("{layers}.toml"), "--out", layers]);
        assert_eq!(ways(layers), expected);
    }
    place.good(&sweep("2"));
    place.run(&sweep("1")).assert_error(2, &["one layer", "no exit"]);
}

#[test]
fn a_sweep_measures_every_point_and_draws_it() {
    let place = Place::trained();
    let sweep = ["sweep", "run", "--data", "valid.txt", "--prompt-tokens", "4", "--new-tokens", "16"];
    let sweep =
        [&sweep[..], &["--exits", "1,3", "--lengths", "1,2,4", "--runs", "2", "--out", "map.svg"]].concat();
    let answer = place.json(&sweep);
    let points = answer["report"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 12, "the model's own layers and copies");
    assert_eq!(points.iter().filter(|point| point["draft_format"] == "int4").count(), 6);
    assert!(points.iter().all(|point| {
        let positions = point["acceptance_by_position"].as_array().unwrap().len();
        positions == point["num_speculations"].as_u64().unwrap() as usize
    }));
    assert!(points.iter().all(|point| point["speed_up"]["median"].as_f64().unwrap() > 0.0));
    assert!(answer["report"]["auto"]["of_best"]["median"].as_f64().unwrap() > 0.0);
    let map = String::from_utf8(place.read("map.svg")).unwrap();
    assert!(
        map.starts_with("<svg") && map.contains("exit 3") && map.contains("3, int4") && map.contains("auto:")
    );
    let own = place.json(&[&sweep[..], &["--draft-format", "own"]].concat());
    assert_eq!(own["report"]["points"].as_array().unwrap().len(), 6);
    let table = place.good(&sweep);
    assert!(table.contains("best") && table.contains("plain decoding"), "{table}");
    assert!(table.contains("trained for exits: yes; best"), "{table}");
    place.run(&["sweep", "run", "--exits", "9"]).assert_error(2, &["exit layer 9"]);
}

#[test]
fn a_sweep_makes_up_weights_that_agree_as_asked() {
    let place = Place::trained();
    let made = [
        "sweep",
        "--config",
        "run/model/config.json",
        "--agree-at",
        "2",
        "--acceptance",
        "0.7",
        "--exits",
        "2",
    ];
    let made = [&made[..], &["--lengths", "2", "--new-tokens", "40", "--prompt-tokens", "4", "--runs", "2"]]
        .concat();
    let answer = place.json(&made);
    let acceptance = answer["made_up"]["acceptance"].as_f64().unwrap();
    assert!((acceptance - 0.7).abs() < 0.15, "{acceptance} of 80 tokens");
    let found = answer["report"]["points"][0]["acceptance_of_next"].as_f64().unwrap();
    assert!((found - acceptance).abs() < 0.1, "{found} over the same texts");
    assert!(place.good(&made).contains("made up"));
    place.run(&["sweep", "--config", "run/model/config.json"]).assert_error(2, &["--acceptance"]);
    place.run(&[&made[..], &["--draft-shortlist", "9"]].concat()).assert_error(2, &["--draft-shortlist"]);
}

#[test]
fn a_wrong_way_to_ask_is_answered() {
    let place = Place::trained();
    let tell = |how: &[&str]| place.run(&[&["generate", "run", "--speculate"], how].concat());
    tell(&["often"]).assert_error(2, &["often", "6:4"]);
    tell(&["9:2"]).assert_error(2, &["exit layer 9", &format!("1 to {LAYERS}")]);
    tell(&["auto", "--draft-head", "int3"]).assert_error(2, &["int3", "int4"]);
    tell(&["auto", "--draft-shortlist", "0"]).assert_error(2, &["shortlist", "empty"]);
    tell(&["auto", "--draft-shortlist", "9", "--draft-corpus", "nowhere.txt"])
        .assert_error(2, &["nowhere.txt"]);
    assert_eq!(tell(&["auto", "--draft-corpus", "valid.txt"]).code, 2, "a corpus for what shortlist?");
}

#[test]
fn tokens_leave_where_an_exit_is_sure() {
    let place = Place::trained();
    let tell = |more: &[&str]| {
        let told =
            ["generate", "run", "--prompt", "The heron", "--max-new-tokens", "40", "--temperature", "0"];
        place.json(&[&told[..], more].concat())
    };
    let plain = tell(&[]);
    assert!(plain["mean_depth"].is_null() && plain["calibration"].is_null());
    let never = tell(&["--agreement", "1", "--calibrate-on", "train.txt"]);
    assert_eq!((&never["tokens"], &never["mean_depth"]), (&plain["tokens"], &4.0.into()));
    let exits = ["--agreement", "0.5", "--confidence-exits", "1,3", "--calibrate-on", "train.txt"];
    let some = tell(&exits);
    assert!(some["mean_depth"].as_f64().unwrap() < 4.0, "{}", some["calibration"]);
    assert!(some["calibration"]["held_out"]["agreement"].as_f64().unwrap() > 0.4);
    // The reported threshold gives the same text without another calibration.
    let threshold = some["calibration"]["threshold"].to_string();
    let again = tell(&["--confidence-threshold", &threshold, "--confidence-exits", "1,3"]);
    assert_eq!((&again["tokens"], &again["mean_depth"]), (&some["tokens"], &some["mean_depth"]));

    let refused = |more: &[&str]| place.run(&[&["generate", "run"], more].concat());
    refused(&["--agreement", "1.5", "--calibrate-on", "train.txt"]).assert_error(2, &["1.5"]);
    refused(&["--agreement", "0.9", "--confidence-exits", "4", "--calibrate-on", "train.txt"])
        .assert_error(2, &["4"]);
    refused(&["--confidence-exits", "2"]).assert_error(2, &["--agreement"]);
    assert_eq!(refused(&["--agreement", "0.9", "--speculate", "auto"]).code, 2);
}
