//! Ternary layers in training, for each of the low-bit family: logits and losses at every exit and the
//! gradient of every weight are those of PyTorch with the same straight-through rule, and logits those of the
//! engine.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{Session, Workspace};
use offramp_kernels::bit_linear::Activations;
use offramp_kernels::gemm::Factors;
use offramp_model::{BitLinear, Config, Formats, Llama, Weights};
use offramp_tests::golden::{Fixture, assert_close, largest};
use offramp_tests::tables::assert_passes_with_every_table;
use offramp_tests::training::{assert_losses, exits};
use offramp_train::network::{Batch, Network, Plan};
use offramp_train::step_weights::Rounding;
use std::sync::Arc;

const FAMILY: [(&str, BitLinear); 3] = [("v1", BitLinear::V1), ("v2", BitLinear::V2), ("v3", BitLinear::V3)];

const LAYERS: usize = 3;
const SAMPLES: usize = 2;
const LENGTH: usize = 9;

/// Of logits of about unit size: codes are the same, what is added differs in its order.
const LOGITS: f64 = 1e-5;

/// Relative to a tensor's largest gradient.
const GRADIENTS: f64 = 1e-5;

/// The fixture's model as one of the family; [`Fixture::tensors`] names what PyTorch says by it.
fn config(bit_linear: BitLinear) -> Config {
    let config = Config::read(&Fixture::new("bitskip").folder().join("config.json")).unwrap();
    assert_eq!(config.bit_linear, Some(BitLinear::V1), "as transformers wrote it");
    Config { bit_linear: Some(bit_linear), ..config }
}

/// The network, what rounds its weights, and its weights.
fn trainee(config: &Config) -> (Network, Rounding, Vec<f32>) {
    let files = Weights::open(Fixture::new("bitskip").folder(), config).unwrap();
    let network = Network::new(config, SAMPLES, LENGTH);
    let mut weights = vec![0.0; network.layout().len()];
    for (spec, range) in network.layout().tensors() {
        files.read(spec, &mut weights[range]).unwrap();
    }
    let rounding = Rounding::new(config, network.layout());
    (network, rounding, weights)
}

fn full_plan() -> Plan {
    let counted = exits(LAYERS).into_iter().map(|(exit, weight)| (exit, weight as f32));
    Plan::full(LAYERS, SAMPLES, LENGTH, counted.collect())
}

#[test]
fn logits_are_pytorchs_at_every_exit() {
    let tensors = Fixture::new("bitskip").tensors();
    let (_, inputs) = tensors.ids("input_ids");
    for (name, bit_linear) in FAMILY {
        let (mut network, mut rounding, weights) = trainee(&config(bit_linear));
        for exit_layer in 1..=LAYERS {
            let found = network.logits(rounding.round(&weights), inputs, exit_layer);
            let (_, expected) = tensors.floats(&format!("{name}.logits.exit_layer_{exit_layer}"));
            assert_close(&format!("{name}, exit {exit_layer}"), &found, expected, LOGITS);
        }
    }
}

#[test]
fn losses_and_every_weights_gradient_are_pytorchs() {
    let fixture = Fixture::new("bitskip");
    let (tensors, json) = (fixture.tensors(), fixture.json());
    let (_, inputs) = tensors.ids("input_ids");
    let (_, labels) = tensors.ids("labels");
    for (name, bit_linear) in FAMILY {
        let (mut network, mut rounding, weights) = trainee(&config(bit_linear));
        // Twice: nothing of a batch may be left for the next.
        for _ in 0..2 {
            let mut gradients = vec![0.0; weights.len()];
            let batch = Batch { inputs, labels };
            let losses =
                network.loss_and_gradients(rounding.round(&weights), batch, &full_plan(), &mut gradients);
            assert_losses(name, &losses, (&json[name]["exit_losses"], &json[name]["total"]), 1e-6);
            for (spec, range) in network.layout().tensors() {
                let (_, expected) = tensors.floats(&format!("{name}.grad.{}", spec.name));
                let tolerance = GRADIENTS * largest(expected);
                assert_close(&format!("{name}.{}", spec.name), &gradients[range], expected, tolerance);
            }
        }
    }
}

#[test]
fn every_kernels_table_gives_pytorchs_gradients() {
    assert_passes_with_every_table("losses_and_every_weights_gradient_are_pytorchs");
}

/// The 8-bit part of `bitskip-v2` is `bitskip-v3`, and the switch leaves nothing of it behind.
#[test]
fn activations_change_their_bits_on_the_way() {
    let tensors = Fixture::new("bitskip").tensors();
    let (_, inputs) = tensors.ids("input_ids");
    let (mut network, mut rounding, weights) = trainee(&config(BitLinear::V2));
    for (name, activations) in
        [("v3", Activations::Int8), ("v2", Activations::Int4), ("v3", Activations::Int8)]
    {
        network.set_activations(activations);
        assert_eq!(network.config().bit_linear.unwrap().activations, activations);
        let found = network.logits(rounding.round(&weights), inputs, LAYERS);
        let (_, expected) = tensors.floats(&format!("{name}.logits.exit_layer_{LAYERS}"));
        assert_close(name, &found, expected, LOGITS);
    }
}

/// Whole numbers are exact in bf16: attention and the head round, and the gradient's factors. What they move
/// by little may still become another code, so that directions are compared, not values.
#[test]
fn bf16_gives_nearly_the_same() {
    let tensors = Fixture::new("bitskip").tensors();
    let (_, inputs) = tensors.ids("input_ids");
    let (_, labels) = tensors.ids("labels");
    let batch = Batch { inputs, labels };
    for (name, bit_linear) in FAMILY {
        let (network, mut rounding, weights) = trainee(&config(bit_linear));
        let mut network = network.with_factors(Factors::Bf16);
        let mut gradients = vec![0.0; weights.len()];
        network.loss_and_gradients(rounding.round(&weights), batch, &full_plan(), &mut gradients);
        let expected: Vec<f32> = network
            .layout()
            .tensors()
            .flat_map(|(spec, _)| tensors.floats(&format!("{name}.grad.{}", spec.name)).1.to_vec())
            .collect();
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
        };
        let cosine =
            dot(&gradients, &expected) / (dot(&gradients, &gradients) * dot(&expected, &expected)).sqrt();
        assert!(cosine > 0.95, "{name}: {cosine}");
    }
}

/// The engine's logits `[tokens, vocab]` of a text that comes token by token, as in generation.
fn engine_logits(model: &Arc<Llama>, tokens: &[u32], exit_layer: usize) -> Vec<f32> {
    let mut session = Session::new(model, tokens.len()).unwrap();
    session.set_exit_layer(exit_layer).unwrap();
    tokens.iter().flat_map(|&token| session.feed(&[token], &mut Workspace::new()).unwrap().to_vec()).collect()
}

#[test]
fn training_and_the_engine_agree_at_every_exit() {
    let tensors = Fixture::new("bitskip").tensors();
    let (_, inputs) = tensors.ids("input_ids");
    for (name, bit_linear) in FAMILY {
        let config = config(bit_linear);
        let (mut network, mut rounding, weights) = trainee(&config);
        let places: Vec<_> = network.layout().tensors().map(|(spec, range)| (spec.clone(), range)).collect();
        let model = Llama::from_weights(config, |wanted| {
            let (_, range) = places.iter().find(|(spec, _)| spec == wanted).expect("a tensor of the layout");
            Ok(weights[range.clone()].to_vec())
        });
        let model = Arc::new(model.unwrap());
        for exit_layer in 1..=LAYERS {
            let found = network.logits(rounding.round(&weights), inputs, exit_layer);
            let engine: Vec<_> =
                inputs.chunks(LENGTH).flat_map(|sample| engine_logits(&model, sample, exit_layer)).collect();
            assert_close(&format!("{name}, exit {exit_layer}, the engine"), &engine, &found, LOGITS);
        }
    }
    // And from the folder.
    let model = Arc::new(Llama::load(Fixture::new("bitskip").folder(), &Formats::default()).unwrap());
    let (_, expected) = tensors.floats(&format!("v1.logits.exit_layer_{LAYERS}"));
    let found: Vec<_> =
        inputs.chunks(LENGTH).flat_map(|sample| engine_logits(&model, sample, LAYERS)).collect();
    assert_close("the folder", &found, expected, LOGITS);
}
