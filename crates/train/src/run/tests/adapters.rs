//! Adapters of exits over a model that stays as it is.

use super::ranks::on_ranks;
use super::*;

/// A recipe of adapters over the model of another run.
fn over(place: &Place, base: &str, keys: &str) -> Result<Recipe> {
    let text = format!(
        "[data]\ncorpus = \"corpus\"\n[start]\ncheckpoint = \"{}\"\ntrain = \"exit_adapters\"\n\
         [training]\nsteps = 12\nbatch_size = 3\naccumulation = 2\nsequence_length = 24\nseed = 9\n\
         [optimizer]\nlearning_rate = 1e-2\n[schedule]\nwarmup_steps = 3\n[validation]\nevery = 0\n\
         [checkpoint]\nevery = 5\nkeep = 2\n[layer_dropout]\nshape = \"none\"\n[early_exit]\n{keys}",
        place.path(base).display()
    );
    Recipe::from_toml(&text, Path::new("r.toml"))
}

fn base(place: &Place) {
    let plain = "[early_exit]\ncurriculum = \"none\"\n[layer_dropout]\nshape = \"none\"";
    quietly(&place.job(&recipe(plain), "base", &GO)).unwrap();
    let bf16 = Formats { layers: Some(offramp_model::Format::Bf16), ..Formats::default() };
    let (from, to) = (place.path("base/model"), place.path("bf16"));
    offramp_model::checkpoint::quantize(&from, &to, &bf16, &mut |_, _| ()).unwrap();
}

#[test]
fn the_model_stays_as_it_is_and_its_exits_learn() {
    let place = Place::new();
    base(&place);
    for base in ["base/model", "bf16"] {
        let recipe =
            over(&place, base, "teacher = \"final\"\nadapter_exits = [2, 1]\nadapter_rank = 4").unwrap();
        let run = format!("over-{}", base.len());
        let summary = quietly(&place.job(&recipe, &run, &GO)).unwrap();
        assert_eq!(summary.step, 12);
        for file in ["model.safetensors", "config.json", "tokenizer.json", "generation_config.json"] {
            let same = place.read(&format!("{base}/{file}")) == place.read(&format!("{run}/model/{file}"));
            assert!(same, "{base}: {file}, bit for bit");
        }
        let model = Llama::load(&summary.model, &Formats::default()).unwrap();
        assert_eq!(model.adapter_exits(), [1, 2]);
        let records = journal_of(&place, &run);
        let losses: Vec<Vec<f64>> = records
            .iter()
            .filter_map(|record| match record {
                Record::Step(step) => Some(step.exit_losses.iter().map(|exit| exit.loss).collect()),
                _ => None,
            })
            .collect();
        assert!(losses.iter().all(|exits| exits.len() == 2), "only exits that learn: {losses:?}");
        assert!((0..2).all(|exit| losses[11][exit] < losses[0][exit]), "{losses:?}");
    }
}

#[test]
fn a_run_over_a_model_resumes_to_the_same_bytes() {
    let place = Place::new();
    base(&place);
    let recipe = over(&place, "bf16", "curriculum = \"rotational\"\nperiod = 2").unwrap();
    quietly(&place.job(&recipe, "whole", &GO)).unwrap();
    let stop = AtomicBool::new(false);
    stopped_after(&place.job(&recipe, "halves", &stop), &stop, 7);
    quietly(&Job { resume: true, ..place.job(&recipe, "halves", &GO) }).unwrap();
    for file in ["model/exits.safetensors", "model/model.safetensors", "step-000012/optimizer.safetensors"] {
        assert!(place.read(&format!("whole/{file}")) == place.read(&format!("halves/{file}")), "{file}");
    }
}

#[test]
fn two_ranks_write_the_adapters_of_one() {
    let place = Place::new();
    base(&place);
    let recipe = over(&place, "bf16", "teacher = \"final\"").unwrap();
    for (folder, size) in [("one", 1), ("two", 2)] {
        on_ranks(&place.job(&recipe, folder, &GO), size).unwrap();
    }
    for file in ["model/exits.safetensors", "model/model.safetensors", "step-000012/optimizer.safetensors"] {
        assert!(place.read(&format!("one/{file}")) == place.read(&format!("two/{file}")), "{file}");
    }
}

#[test]
fn what_adapters_cannot_be_is_one_clear_line() {
    let place = Place::new();
    base(&place);
    for (keys, expected) in [
        ("adapter_exits = [4]", "early_exit.adapter_exits is 4: it must be exit layers from 1 to 3"),
        ("adapter_exits = []", "early_exit.adapter_exits is []: it must be one exit at least"),
        ("adapter_rank = 0", "early_exit.adapter_rank is 0: it must be 1 to 16"),
        ("curriculum = \"none\"", "another where only exits learn"),
        ("[averages]\nema_decay = 0.9", "[averages] is given: it must be left out"),
        ("[layer_dropout]\nshape = \"linear\"", "duplicate"),
    ] {
        let message = over(&place, "bf16", keys).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message:?}, not {expected:?}");
    }
    let text = over(&place, "bf16", "").unwrap().text().to_owned();
    for (from, to, expected) in [
        ("shape = \"none\"", "shape = \"linear\"", "layer_dropout.shape is another: it must be \"none\""),
        ("train = \"exit_adapters\"", "train = \"all\"\n[early_exit]\nadapter_rank = 4", "duplicate"),
    ] {
        let message =
            Recipe::from_toml(&text.replace(from, to), Path::new("r.toml")).unwrap_err().to_string();
        assert!(message.contains(expected) && !message.contains('\n'), "{message:?}, not {expected:?}");
    }
    let alone = recipe("").text().replace("[training]", "[start]\ntrain = \"exit_adapters\"\n[training]");
    let message = Recipe::from_toml(&alone, Path::new("r.toml")).unwrap_err().to_string();
    assert!(
        message.contains("start.train is \"exit_adapters\"") && message.contains("checkpoint"),
        "{message}"
    );
}
