//! Training's steps against PyTorch: ten of the whole model, ten each of AdamW and Muon over given gradients.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_model::Config;
use offramp_tests::golden::{Fixture, Tensors, assert_close, assert_near, ids, number, numbers};
use offramp_tests::tables::assert_passes_with_every_table;
use offramp_tests::training::{Trainee, assert_losses};
use offramp_train::network::Batch;
use offramp_train::optimizer::{Optimizer, Update};
use offramp_train::parameters::Layout;
use offramp_train::recipe::{Matrices, OptimizerKeys, Recipe};
use offramp_train::schedule::Schedule;
use serde_json::Value;
use std::ops::Range;
use std::path::Path;

/// Relative, for losses during training, to which the roundings of earlier steps add: PyTorch's own in f32
/// are within 2e-7 of those in f64.
const TRAINING_TOLERANCE: f64 = 2e-6;

#[test]
fn ten_steps_of_training_are_pytorchs() {
    let expected = Fixture::new("training").json();
    let batches = expected["batches"].as_array().unwrap();
    let (samples, length) = (batches[0].as_array().unwrap().len(), ids(&batches[0][0]).len() - 1);
    let mut trainee = Trainee::new(expected["model"].as_str().unwrap(), samples, length);
    let schedule = schedule(&expected);
    let mut optimizer = Optimizer::new(&optimizer_keys(&expected), trainee.network.layout());
    let steps = expected["steps"].as_array().unwrap();
    assert_eq!((steps.len(), batches.len()), (10, 10));
    for (step, (want, rows)) in (0..).zip(steps.iter().zip(batches)) {
        let rows: Vec<Vec<u32>> = rows.as_array().unwrap().iter().map(ids).collect();
        let inputs: Vec<u32> = rows.iter().flat_map(|row| &row[..length]).copied().collect();
        let labels: Vec<u32> = rows.iter().flat_map(|row| &row[1..]).copied().collect();
        trainee.gradients.fill(0.0);
        let losses = trainee.accumulate(Batch { inputs: &inputs, labels: &labels }, samples, 1.0);
        let norm = optimizer.norm(&trainee.gradients);
        let rate = schedule.learning_rate(step);
        let what = format!("step {step}");
        assert_losses(&what, &losses, (&want["exit_losses"], &want["loss"]), TRAINING_TOLERANCE);
        assert_near(&format!("{what}, gradient norm"), norm, number(&want["grad_norm"]), 1e-5);
        assert_near(&format!("{what}, learning rate"), rate, number(&want["learning_rate"]), 1e-12);
        let Trainee { network, weights, gradients } = &mut trainee;
        let update = Update { number: step + 1, learning_rate: rate, norm };
        optimizer.step(network.layout(), weights, gradients, update);
    }
    assert_final_weights(&trainee, &expected["final_weights"]);
}

fn assert_final_weights(trainee: &Trainee, expected: &Value) {
    for (spec, range) in trainee.network.layout().tensors() {
        let (weights, want) = (&trainee.weights[range], &expected[&spec.name]);
        let sum: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        let squares: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        // Where a gradient is nearly nothing, AdamW turns its last bits into a step of the learning rate's
        // size: PyTorch's own sums in f32 and f64 differ by up to 7e-5.
        let difference = (sum - number(&want["sum"])).abs();
        assert!(difference < 5e-4, "{}: the sum is {difference:.1e} from PyTorch's", spec.name);
        assert_near(&spec.name, squares, number(&want["sum_of_squares"]), 5e-6);
    }
}

fn schedule(expected: &Value) -> Schedule {
    let keys = &expected["schedule"];
    Schedule {
        peak: number(&keys["peak"]),
        warmup_steps: number(&keys["warmup_steps"]) as u64,
        steps: number(&keys["steps"]) as u64,
        final_fraction: number(&keys["final_fraction"]),
        weight_decay: number(&expected["weight_decay"]),
        second: None,
        int4_from: None,
    }
}

fn optimizer_keys(expected: &Value) -> OptimizerKeys {
    let betas = numbers(&expected["betas"]);
    OptimizerKeys {
        learning_rate: number(&expected["schedule"]["peak"]),
        betas: [betas[0], betas[1]],
        eps: number(&expected["eps"]),
        weight_decay: number(&expected["weight_decay"]),
        clip: number(&expected["max_norm"]),
        ..Default::default()
    }
}

/// A model's layout, and where in it the fixture's tensors are put: matrices one after the other in the
/// embedding, which decays, and vectors in the final norm, which does not.
fn places(tensors: &Tensors) -> (Layout, Vec<(&str, Range<usize>)>) {
    let config = Fixture::new("gqa-untied").folder().join("config.json");
    let layout = Layout::new(&Config::read(&config).unwrap());
    let find = |name: &str| layout.tensors().find(|(spec, _)| spec.name == name).unwrap().1;
    let (mut matrices, mut vectors) = (find("model.embed_tokens.weight"), find("model.norm.weight"));
    let place = |name| {
        let (shape, values) = tensors.floats(&format!("initial.{name}"));
        let free = if shape.len() == 2 { &mut matrices } else { &mut vectors };
        let place = free.start..free.start + values.len();
        assert!(place.end <= free.end, "room for {name}");
        free.start = place.end;
        (name, place)
    };
    let places = tensors.names("initial.").map(place).collect();
    (layout, places)
}

/// Makes the fixture's steps, each of which is PyTorch's, and returns the weights.
fn assert_steps(
    fixture: &Fixture,
    layout: &Layout,
    places: &[(&str, Range<usize>)],
    keys: &OptimizerKeys,
) -> Vec<f32> {
    let (tensors, expected) = (fixture.tensors(), fixture.json());
    let norms = numbers(&expected["grad_norms"]);
    let mut optimizer = Optimizer::new(keys, layout);
    // All other weights and gradients of the model are zero, and stay it.
    let (mut weights, mut gradients) = (vec![0.0; layout.len()], vec![0.0; layout.len()]);
    for (name, place) in places {
        weights[place.clone()].copy_from_slice(tensors.floats(&format!("initial.{name}")).1);
    }
    for (step, lr) in numbers(&expected["learning_rates"]).into_iter().enumerate() {
        for (name, place) in places {
            let (_, gradient) = tensors.floats(&format!("step_{step}.grad.{name}"));
            gradients[place.clone()].copy_from_slice(gradient);
        }
        let norm = optimizer.norm(&gradients);
        assert_near(&format!("gradient norm of step {step}"), norm, norms[step], 1e-6);
        let update = Update { number: step as u64 + 1, learning_rate: lr, norm };
        optimizer.step(layout, &mut weights, &gradients, update);
        for (name, place) in places {
            // The parameters are of unit size: a few roundings a step.
            let (_, after) = tensors.floats(&format!("step_{step}.after.{name}"));
            assert_close(&format!("{name} after step {step}"), &weights[place.clone()], after, 1e-6);
        }
    }
    let placed = |index: &usize| places.iter().any(|(_, place)| place.contains(index));
    assert!((0..layout.len()).filter(|index| !placed(index)).all(|index| weights[index] == 0.0));
    weights
}

#[test]
fn adamw_steps_are_pytorchs() {
    let fixture = Fixture::new("adamw");
    let tensors = fixture.tensors();
    let (layout, places) = places(&tensors);
    assert_eq!(places.len(), 3);
    assert_steps(&fixture, &layout, &places, &optimizer_keys(&fixture.json()));
}

/// In f32, as PyTorch's formula in f64; PyTorch itself rounds the iteration to bf16.
#[test]
fn muon_steps_are_pytorchs() {
    let fixture = Fixture::new("muon");
    let (tensors, expected) = (fixture.tensors(), fixture.json());
    let recipe = "[data]\ncorpus = \"c\"\n[layer_dropout]\nshape = \"none\"\n[model]\nhidden_size = 8\n\
                  intermediate_size = 12\nnum_hidden_layers = 1\nnum_attention_heads = 2\nnum_key_value_heads = 1";
    let recipe = Recipe::from_toml(recipe, Path::new("r.toml")).unwrap();
    let layout = Layout::new(&recipe.config(5, None).unwrap());
    let place = |name| {
        let (spec, place) = layout.tensors().find(|(spec, _)| spec.name == name).unwrap();
        assert_eq!(spec.shape, tensors.floats(&format!("initial.{name}")).0);
        (name, place)
    };
    let places: Vec<_> = tensors.names("initial.").map(place).collect();
    assert_eq!(places.len(), 6);
    let muon_momentum = Some(number(&expected["momentum"]));
    let keys = OptimizerKeys { matrices: Matrices::Muon, muon_momentum, ..optimizer_keys(&expected) };
    let weights = assert_steps(&fixture, &layout, &places, &keys);
    for (name, place) in places {
        let (_, rounded) = tensors.floats(&format!("bfloat16.{name}"));
        assert_close(&format!("{name} beside bfloat16"), &weights[place], rounded, 1e-3);
    }
}

#[test]
fn every_kernels_table_makes_pytorchs_steps() {
    assert_passes_with_every_table("adamw_steps_are_pytorchs");
    assert_passes_with_every_table("muon_steps_are_pytorchs");
    assert_passes_with_every_table("ten_steps_of_training_are_pytorchs");
}
