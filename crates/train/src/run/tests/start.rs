//! Runs that begin from an existing model.

use super::*;
use offramp_model::Weights;

/// `recipe("")` without its sizes, begun from `run/model`.
fn continued(place: &Place, keys: &str) -> Result<Recipe> {
    continued_from(&place.path("run/model"), keys)
}

fn continued_from(checkpoint: &Path, keys: &str) -> Result<Recipe> {
    let text = recipe("").text().to_owned();
    let sizes = &text[text.find("[model]").unwrap()..text.find("[training]").unwrap()];
    let start = format!("[start]\ncheckpoint = {checkpoint:?}\n{keys}\n");
    Recipe::from_toml(&text.replace(sizes, &start), Path::new("r.toml"))
}

fn losses(place: &Place, folder: &str) -> Vec<f64> {
    let records = journal_of(place, folder);
    records
        .iter()
        .filter_map(|r| if let Record::Step(step) = r { Some(step.final_loss) } else { None })
        .collect()
}

#[test]
fn a_run_goes_on_from_a_model() {
    let place = Place::new();
    quietly(&place.job(&recipe(""), "run", &GO)).unwrap();
    let recipe = continued(&place, "").unwrap();
    quietly(&place.job(&recipe, "more", &GO)).unwrap();
    let (before, after) = (losses(&place, "run"), losses(&place, "more"));
    assert!(after[0] < before[0] - 0.3, "it begins where the other ended: {after:?} after {before:?}");
    let model = Llama::load(&place.path("more/model"), &Formats::default()).unwrap();
    assert_eq!(model.config().hidden_size, 16);
    // Only where it begins depends on the checkpoint.
    quietly(&Job { resume: true, ..place.job(&recipe, "more", &GO) }).unwrap();
}

/// A family's run writes its folder, resumes in the same bytes, and another run goes on from it.
#[test]
fn families_train_resume_and_go_on() {
    for keys in
        ["model_type = \"qwen3\"\nattention_bias = true", "model_type = \"mistral\"\nsliding_window = 5"]
    {
        let place = Place::new();
        let text = recipe("").text().replace("[model]\n", &format!("[model]\n{keys}\n"));
        let of = |steps: &str| {
            let text = text.replace("steps = 20", steps);
            Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
        };
        quietly(&place.job(&of("steps = 20"), "run", &GO)).unwrap();
        let stop = AtomicBool::new(false);
        let whole = of("steps = 20");
        let job = place.job(&whole, "halves", &stop);
        run(&job, &mut |event| {
            if let Event::Step { record, .. } = event {
                stop.store(record.step == 9, Ordering::Relaxed);
            }
        })
        .unwrap();
        quietly(&Job { resume: true, ..place.job(&whole, "halves", &GO) }).unwrap();
        let file = |folder: &str| fs::read(place.path(folder).join("model/model.safetensors")).unwrap();
        assert!(file("run") == file("halves"), "{keys}");
        let model = Llama::load(&place.path("run/model"), &Formats::default()).unwrap();
        assert_eq!(model.config().family, whole.config(300, None).unwrap().family);
        let recipe = continued(&place, "").unwrap();
        quietly(&place.job(&recipe, "more", &GO)).unwrap();
        let (before, after) = (losses(&place, "run"), losses(&place, "more"));
        assert!(after[0] < before[0] - 0.3, "{keys}: {after:?} after {before:?}");
    }
}

#[test]
fn the_exit_head_learns_alone() {
    let place = Place::new();
    quietly(&place.job(&recipe(""), "run", &GO)).unwrap();
    let recipe = continued(&place, "train = \"exit_head\"").unwrap();
    quietly(&place.job(&recipe, "head", &GO)).unwrap();
    let config = Llama::load(&place.path("run/model"), &Formats::default()).unwrap().config().clone();
    let open = |folder: &str| Weights::open(&place.path(folder), &config).unwrap();
    let (before, after) = (open("run/model"), open("head/model"));
    for spec in config.tensors() {
        let same = before.take(&spec).unwrap().as_slice() == after.take(&spec).unwrap().as_slice();
        let learns = ["model.norm.weight", "lm_head.weight"].contains(&spec.name.as_str());
        assert_ne!(same, learns, "{}", spec.name);
    }
}

#[test]
fn starts_that_cannot_be_are_refused() {
    let place = Place::new();
    assert!(continued(&place, "").unwrap_err().to_string().contains("there is nothing there"));
    fs::write(place.path("m.gguf"), "GGUF").unwrap();
    let message = continued_from(&place.path("m.gguf"), "").unwrap_err().to_string();
    assert!(message.contains("m.gguf: it ends in the middle"), "{message}");
    quietly(&place.job(&recipe(""), "run", &GO)).unwrap();
    let refused = |text: &str, expected: &str| {
        let message = Recipe::from_toml(text, Path::new("r.toml")).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    };
    let of_run = continued_from(&place.path("run"), "").unwrap();
    assert_eq!(of_run.start.checkpoint, Some(place.path("run/model")), "as every command takes a run folder");
    let good = continued(&place, "").unwrap().text().to_owned();
    refused(&format!("{good}[model]\nhidden_size = 16"), "[model] is given: it must be left out");
    refused("[data]\ncorpus = \"c\"\n[start]\ntrain = \"exit_head\"", "where no start.checkpoint is given");
    let config = place.path("run/model/config.json");
    let tied = fs::read_to_string(&config)
        .unwrap()
        .replace("\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    fs::write(&config, tied).unwrap();
    refused(
        &good.replace("[start]\n", "[start]\ntrain = \"exit_head\"\n"),
        "the checkpoint's head is its embedding",
    );
}
