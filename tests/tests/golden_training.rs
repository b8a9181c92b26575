//! Training against PyTorch: losses, the gradient of every weight, ten optimizer steps, ten training steps.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_kernels::{AdamWStep, available};
use offramp_model::journal::ExitLoss;
use offramp_model::{Config, Weights};
use offramp_tests::golden::{Fixture, assert_close, assert_near, ids, largest, number, numbers};
use offramp_train::dropout::Chances;
use offramp_train::early_exit::{EarlyExitLoss, ExitWeight};
use offramp_train::optimizer::Optimizer;
use offramp_train::parameters::Layout;
use offramp_train::recipe::OptimizerKeys;
use offramp_train::schedule::Schedule;
use offramp_train::{Batch, Drop, Network, Recipe, Room};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// The fixtures with gradients.
const TRAINED: [&str; 2] = ["gqa-untied", "tied-headdim"];

/// Relative, for losses: PyTorch's own in f32 are about 1e-7 from those in f64.
const LOSS_TOLERANCE: f64 = 1e-6;

/// Relative, for losses during training, to which the roundings of earlier steps add: PyTorch's own in f32
/// are within 2e-7 of those in f64.
const TRAINING_TOLERANCE: f64 = 2e-6;

/// Relative to a tensor's largest gradient: PyTorch's own in f32 are up to 2.8e-6 from those in f64.
const GRADIENT_TOLERANCE: f64 = 1e-5;

const NO_DROPOUT: &str = "shape = \"none\"";

/// A recipe with this many layers and layer dropout, whose early-exit loss is the card's.
fn recipe(layers: usize, layer_dropout: &str) -> Recipe {
    let text = format!(
        "[data]\ncorpus = \"none\"\n[model]\nnum_hidden_layers = {layers}\nvocab_size = 101\n\
         [layer_dropout]\n{layer_dropout}"
    );
    Recipe::from_toml(&text, Path::new("golden.toml")).unwrap()
}

/// A fixture's model with room for its batch, and its config.
fn network(name: &str, samples: usize, length: usize) -> (Network, Config) {
    let fixture = Fixture::new(name);
    let config = Config::read(&fixture.folder().join("config.json")).unwrap();
    let files = Weights::open(fixture.folder(), &config).unwrap();
    let layout = Layout::new(&config);
    let mut weights = vec![0.0; layout.len()];
    for (spec, range) in layout.tensors() {
        weights[range].copy_from_slice(files.take(spec).unwrap().as_slice());
    }
    (Network::new(&config, weights, Room { samples, length }).unwrap(), config)
}

fn total(losses: &[ExitLoss], exits: &[ExitWeight]) -> f64 {
    losses.iter().zip(exits).map(|(loss, exit)| loss.loss * exit.weight).sum()
}

fn assert_losses(what: &str, losses: &[ExitLoss], expected: &Value, tolerance: f64) {
    let expected = numbers(expected);
    assert_eq!(losses.len(), expected.len(), "{what}: one loss for each exit");
    for (index, (found, expected)) in losses.iter().zip(expected).enumerate() {
        assert_eq!(found.exit_layer, index + 1);
        assert_near(&format!("{what}, loss at exit {}", index + 1), found.loss, expected, tolerance);
    }
}

#[test]
fn trainings_logits_are_pytorchs_at_every_exit() {
    for name in TRAINED {
        let tensors = Fixture::new(name).tensors();
        let (shape, inputs) = tensors.ids("input_ids");
        let (mut network, config) = network(name, shape[0], shape[1]);
        for exit_layer in 1..=config.num_hidden_layers {
            let found = network.logits(inputs, shape[1], exit_layer).unwrap();
            let (_, expected) = tensors.floats(&format!("logits.exit_layer_{exit_layer}"));
            // As in golden_model.rs.
            assert_close(&format!("{name}, exit {exit_layer}"), &found, expected, 1e-5);
        }
    }
}

/// The layer dropout of a fixture's block, and a micro-batch whose draws are exactly its `keep`.
fn layer_dropout(block: &Value, samples: usize) -> (Chances, u64) {
    let p = numbers(&block["p"]);
    let rescale = block["rescale"].as_bool().unwrap();
    let keys = format!("shape = \"linear\"\nnormalize = \"none\"\np_max = {}", p[p.len() - 1]);
    let keys = format!("{keys}\ndrop_last = true\nrescale = {rescale}");
    let chances = Chances::new(&recipe(p.len(), &keys)).unwrap();
    for (layer, &p) in p.iter().enumerate() {
        assert!((chances.chance(0, layer) - p).abs() < 1e-12, "the fixture's chances");
    }
    let wanted: Vec<Vec<usize>> = block["keep"].as_array().unwrap().iter().map(kept_samples).collect();
    let mut kept = Vec::new();
    let index = (0..100_000).find(|&index| {
        wanted.iter().enumerate().all(|(layer, wanted)| {
            chances.keep((0, index), layer, samples, &mut kept);
            kept == *wanted
        })
    });
    (chances, index.expect("such draws among so many micro-batches"))
}

/// The samples that a row of `keep` does not drop.
fn kept_samples(row: &Value) -> Vec<usize> {
    let row = numbers(row);
    (0..row.len()).filter(|&sample| row[sample] == 1.0).collect()
}

#[test]
fn losses_and_every_weights_gradient_are_pytorchs() {
    for name in TRAINED {
        let fixture = Fixture::new(name);
        let (tensors, expected) = (fixture.tensors(), fixture.json());
        let (shape, inputs) = tensors.ids("input_ids");
        let (_, labels) = tensors.ids("labels");
        let batch = Batch { inputs, labels, length: shape[1] };
        // One network for all: nothing of a batch may be left for the next.
        let (mut network, config) = network(name, shape[0], shape[1]);
        let exits = EarlyExitLoss::new(&recipe(config.num_hidden_layers, NO_DROPOUT)).exits(0);
        let (dropped, rescaled) = (&expected["layer_dropout"], &expected["layer_dropout_rescale"]);
        for (prefix, block) in
            [("dropout.", dropped), ("", &expected["loss"]), ("dropout_rescale.", rescaled)]
        {
            let what = format!("{name}, {prefix}grad");
            let draws = block["keep"].is_array().then(|| layer_dropout(block, shape[0]));
            let drop = draws.as_ref().map(|(chances, index)| Drop { chances, step: 0, index: *index });
            network.gradients.fill(0.0);
            let losses = network.train(batch, &exits, drop, 1.0).unwrap();
            assert_losses(&what, &losses, &block["exit_losses"], LOSS_TOLERANCE);
            assert_near(&what, total(&losses, &exits), number(&block["total"]), LOSS_TOLERANCE);
            for (spec, range) in network.layout().tensors() {
                let (_, want) = tensors.floats(&format!("{prefix}grad.{}", spec.name));
                // A layer that every sample skipped has a gradient of exactly zero.
                let tolerance = GRADIENT_TOLERANCE * largest(want);
                assert_close(&format!("{what}.{}", spec.name), &network.gradients[range], want, tolerance);
            }
        }
    }
}

#[test]
fn every_kernels_table_gives_pytorchs_gradients() {
    // The table is chosen once per process, so each one gets its own run of the test above.
    for table in available() {
        let test = "losses_and_every_weights_gradient_are_pytorchs";
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env("OFFRAMP_KERNELS", table.name)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(run.status.success() && said.contains("1 passed"), "{}: {said}", table.name);
    }
}

#[test]
fn micro_batches_add_up_to_pytorchs_gradient() {
    let tensors = Fixture::new("gqa-untied").tensors();
    let (shape, inputs) = tensors.ids("input_ids");
    let (_, labels) = tensors.ids("labels");
    let (mut network, config) = network("gqa-untied", shape[0], shape[1]);
    let exits = EarlyExitLoss::new(&recipe(config.num_hidden_layers, NO_DROPOUT)).exits(0);
    // One sample and then the rest, each with its share of the mean.
    let cut = shape[1];
    for (inputs, labels) in [(&inputs[..cut], &labels[..cut]), (&inputs[cut..], &labels[cut..])] {
        let share = inputs.len() as f64 / (shape[0] * shape[1]) as f64;
        network.train(Batch { inputs, labels, length: shape[1] }, &exits, None, share).unwrap();
    }
    for (spec, range) in network.layout().tensors() {
        let (_, want) = tensors.floats(&format!("grad.{}", spec.name));
        assert_close(&spec.name, &network.gradients[range], want, GRADIENT_TOLERANCE * largest(want));
    }
}

#[test]
fn ten_steps_of_training_are_pytorchs() {
    let expected = Fixture::new("training").json();
    let batches = expected["batches"].as_array().unwrap();
    let (samples, length) = (batches[0].as_array().unwrap().len(), ids(&batches[0][0]).len() - 1);
    let (mut network, config) = network(expected["model"].as_str().unwrap(), samples, length);
    let exits = EarlyExitLoss::new(&recipe(config.num_hidden_layers, NO_DROPOUT)).exits(0);
    let (schedule, mut optimizer) =
        (schedule(&expected), Optimizer::new(&optimizer_keys(&expected), network.layout()));
    for (step, (want, rows)) in expected["steps"].as_array().unwrap().iter().zip(batches).enumerate() {
        let rows: Vec<Vec<u32>> = rows.as_array().unwrap().iter().map(ids).collect();
        let inputs: Vec<u32> = rows.iter().flat_map(|row| &row[..length]).copied().collect();
        let labels: Vec<u32> = rows.iter().flat_map(|row| &row[1..]).copied().collect();
        network.gradients.fill(0.0);
        let batch = Batch { inputs: &inputs, labels: &labels, length };
        let losses = network.train(batch, &exits, None, 1.0).unwrap();
        let norm = optimizer.gradient_norm(&network.gradients);
        let rate = schedule.learning_rate(step as u64);
        let what = format!("step {step}");
        assert_losses(&what, &losses, &want["exit_losses"], TRAINING_TOLERANCE);
        assert_near(&what, total(&losses, &exits), number(&want["loss"]), TRAINING_TOLERANCE);
        assert_near(&format!("{what}, gradient norm"), norm, number(&want["grad_norm"]), 1e-5);
        assert_near(&format!("{what}, learning rate"), rate, number(&want["learning_rate"]), 1e-12);
        optimizer.step(rate, norm, &mut network.weights, &network.gradients);
    }
    for (spec, range) in network.layout().tensors() {
        let (weights, want) = (&network.weights[range], &expected["final_weights"][&spec.name]);
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
    }
}

#[test]
fn adamw_steps_are_pytorchs() {
    let fixture = Fixture::new("adamw");
    let (tensors, expected) = (fixture.tensors(), fixture.json());
    let (betas, norms) = (numbers(&expected["betas"]), numbers(&expected["grad_norms"]));
    let names: Vec<_> = tensors.names("initial.").collect();
    for table in available() {
        let mut state: Vec<_> = names
            .iter()
            .map(|name| tensors.floats(&format!("initial.{name}")).1.to_vec())
            .map(|param| (vec![0.0; param.len()], vec![0.0; param.len()], param))
            .collect();
        for (step, lr) in numbers(&expected["learning_rates"]).into_iter().enumerate() {
            let grads: Vec<_> =
                names.iter().map(|name| tensors.floats(&format!("step_{step}.grad.{name}"))).collect();
            let norm = grads.iter().map(|(_, grad)| (table.sum_of_squares)(grad)).sum::<f64>().sqrt();
            assert_near(&format!("{}, gradient norm of step {step}", table.name), norm, norms[step], 1e-6);
            for (((shape, grad), name), (m, v, param)) in grads.iter().zip(&names).zip(&mut state) {
                // On matrices only.
                let decay = if shape.len() == 2 { number(&expected["weight_decay"]) } else { 0.0 };
                let update = AdamWStep {
                    lr: lr as f32,
                    beta1: betas[0] as f32,
                    beta2: betas[1] as f32,
                    eps: number(&expected["eps"]) as f32,
                    weight_decay: decay as f32,
                    bias1: (1.0 - betas[0].powi(step as i32 + 1)) as f32,
                    bias2: (1.0 - betas[1].powi(step as i32 + 1)) as f32,
                    grad_scale: (number(&expected["max_norm"]) / norm).min(1.0) as f32,
                };
                (table.adamw)(&update, param, grad, m, v);
                // The parameters are of unit size: a few roundings a step.
                let (_, after) = tensors.floats(&format!("step_{step}.after.{name}"));
                assert_close(&format!("{}, {name} after step {step}", table.name), param, after, 1e-6);
            }
        }
    }
}
