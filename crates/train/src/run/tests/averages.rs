//! Averages of the weights, and stories in a new order: what they change, and what they do not.

use super::*;
use crate::parameters::Layout;
use offramp_model::Weights;

fn weights(place: &Place, recipe: &Recipe, folder: &str) -> Vec<f32> {
    let config = recipe.config(280, None).unwrap();
    let files = Weights::open(&place.path(folder), &config).unwrap();
    let layout = Layout::new(&config);
    let mut weights = vec![0.0; layout.len()];
    layout.tensors().for_each(|(spec, range)| files.read(spec, &mut weights[range]).unwrap());
    weights
}

/// The averages of all checkpoints' weights, computed anew; the run itself is as without them.
#[test]
fn averages_are_those_of_the_weights_of_each_step() {
    let place = Place::new();
    let keep = |keys: &str| {
        let text = recipe(keys).text().replace("every = 5\nkeep = 2", "every = 1\nkeep = 20");
        Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
    };
    let plain = keep("");
    quietly(&place.job(&plain, "plain", &GO)).unwrap();
    let averaged = keep("[averages]\nema_decay = 0.75\nswa_start = 6\nswa_every = 5");
    let summary = quietly(&place.job(&averaged, "averaged", &GO)).unwrap();
    assert_eq!(summary.averages, ["model-ema", "model-swa"].map(|name| place.path("averaged").join(name)));
    let last = "model/model.safetensors";
    assert!(place.read(&format!("plain/{last}")) == place.read(&format!("averaged/{last}")));
    let steps: Vec<_> =
        (1..=20).map(|step| weights(&place, &plain, &format!("plain/step-{step:06}"))).collect();
    let mean =
        |value: usize| [5, 10, 15].iter().map(|&step| f64::from(steps[step][value])).sum::<f64>() / 3.0;
    let moving = |value: usize| {
        let each = steps.iter().map(|weights| f64::from(weights[value]));
        each.reduce(|average, weight| 0.75 * average + 0.25 * weight).unwrap()
    };
    let of = |folder: &str| weights(&place, &averaged, folder);
    let (ema, swa, len) = (of("averaged/model-ema"), of("averaged/model-swa"), steps[0].len());
    let near = |found: f32, expected: f64| (f64::from(found) - expected).abs() < 1e-5;
    assert!((0..len).all(|value| near(ema[value], moving(value)) && near(swa[value], mean(value))));
    assert!(ema != swa && ema != steps[19]);
}

#[test]
fn a_mean_that_has_not_begun_is_not_written() {
    let (place, recipe) = (Place::new(), recipe("[averages]\nswa_start = 20"));
    let stop = AtomicBool::new(false);
    let summary = stopped_after(&place.job(&recipe, "run", &stop), &stop, 10);
    assert!(summary.stopped && summary.averages.is_empty() && !place.path("run/model-swa").exists());
    let summary = quietly(&Job { resume: true, ..place.job(&recipe, "run", &GO) }).unwrap();
    assert_eq!(summary.averages, [place.path("run/model-swa")]);
    let last = |folder: &str| place.read(&format!("run/{folder}/model.safetensors"));
    assert!(last("model") == last("model-swa"), "the mean of one");
}

/// Stories in a new order are a key of their own: other batches, the same from run to run.
#[test]
fn stories_may_be_in_a_new_order_in_each_epoch() {
    let place = Place::new();
    let shuffled = |key: &str| {
        let text = recipe("").text().replace("[training]", &format!("[training]\n{key}"));
        Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
    };
    let mut models = Vec::new();
    for (name, key) in [
        ("w", ""),
        ("x", "shuffle = \"windows\""),
        ("s", "shuffle = \"stories\""),
        ("t", "shuffle = \"stories\""),
    ] {
        quietly(&place.job(&shuffled(key), name, &GO)).unwrap();
        models.push(place.read(&format!("{name}/model/model.safetensors")));
    }
    assert!(models[0] == models[1] && models[2] == models[3] && models[0] != models[2]);
}
