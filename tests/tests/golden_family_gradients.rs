//! Training of every family against transformers: logits and losses at every exit, and the gradient of every
//! weight. And against the engine, directly.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{Session, Workspace};
use offramp_model::{Format, Formats, Llama};
use offramp_tests::golden::{FAMILIES, Fixture, assert_close, largest};
use offramp_tests::tables::assert_passes_with_every_table;
use offramp_tests::training::{Trainee, assert_losses};
use offramp_train::network::Batch;
use offramp_train::step_weights::StepWeights;
use std::sync::Arc;

/// As in golden_gradients.rs.
const LOSS_TOLERANCE: f64 = 1e-6;

/// Relative to the largest gradient of a tensor, or of the layers' largest where a tensor's own gradient is
/// nearly nothing: PyTorch sums it to the last bits of larger numbers.
const GRADIENT_TOLERANCE: f64 = 1e-5;

fn path(name: &str) -> String {
    format!("families/{name}")
}

#[test]
fn logits_are_transformers_at_every_exit_and_the_engines() {
    for name in FAMILIES {
        let fixture = Fixture::new(&path(name));
        let model = Arc::new(Llama::load(fixture.folder(), &Formats::all(Format::F32)).unwrap());
        let tensors = fixture.tensors();
        let (shape, inputs) = tensors.ids("input_ids");
        let mut trainee = Trainee::new(&path(name), shape[0], shape[1]);
        for exit_layer in 1..=trainee.layers() {
            let found = trainee.network.logits(StepWeights::floats(&trainee.weights), inputs, exit_layer);
            let (_, expected) = tensors.floats(&format!("logits.exit_layer_{exit_layer}"));
            assert_close(&format!("{name}, exit {exit_layer}"), &found, expected, 1e-5);
            let engine = inputs.chunks(shape[1]).flat_map(|sample| {
                let mut session = Session::new(&model, sample.len()).unwrap();
                session.set_exit_layer(exit_layer).unwrap();
                session.feed_each(sample, &mut Workspace::new()).unwrap().to_vec()
            });
            let engine: Vec<f32> = engine.collect();
            let tolerance = 1e-5 * largest(&engine);
            assert_close(&format!("{name}, exit {exit_layer}, the engine"), &found, &engine, tolerance);
        }
    }
}

#[test]
fn losses_and_every_weights_gradient_are_transformers() {
    for name in FAMILIES {
        let fixture = Fixture::new(&path(name));
        let (tensors, expected) = (fixture.tensors(), fixture.json());
        let (shape, inputs) = tensors.ids("input_ids");
        let (_, labels) = tensors.ids("labels");
        let mut trainee = Trainee::new(&path(name), shape[0], shape[1]);
        // Twice: nothing of a batch may be left for the next.
        for _ in 0..2 {
            trainee.gradients.fill(0.0);
            let losses = trainee.accumulate(Batch { inputs, labels }, shape[0], 1.0);
            let block = &expected["loss"];
            assert_losses(name, &losses, (&block["exit_losses"], &block["total"]), LOSS_TOLERANCE);
            let mut compared = 0;
            for (spec, range) in trainee.network.layout().tensors() {
                let (_, want) = tensors.floats(&format!("grad.{}", spec.name));
                let tolerance = GRADIENT_TOLERANCE * largest(want);
                assert_close(&format!("{name}.{}", spec.name), &trainee.gradients[range], want, tolerance);
                compared += 1;
            }
            assert_eq!(compared, tensors.names("grad.").count(), "{name}: every weight");
        }
    }
}

#[test]
fn every_kernels_table_gives_transformers_gradients() {
    assert_passes_with_every_table("losses_and_every_weights_gradient_are_transformers");
}
