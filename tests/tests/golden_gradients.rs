//! Training's network against PyTorch: logits and losses at every exit, the gradient of every weight. And
//! against the engine, directly.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{Session, Workspace};
use offramp_model::{Format, Formats, Llama};
use offramp_tests::golden::{Fixture, MODELS, Tensors, assert_close, assert_near, largest, number, numbers};
use offramp_tests::tables::assert_passes_with_every_table;
use offramp_tests::training::{Trainee, assert_losses, exits, recipe};
use offramp_train::dropout::{LayerDropout, MicroBatch};
use offramp_train::network::{Batch, Distillation, Plan, TeacherLoss};
use offramp_train::step_weights::StepWeights;
use serde_json::Value;
use std::sync::Arc;

/// The fixtures with gradients.
const TRAINED: [&str; 2] = ["gqa-untied", "tied-headdim"];

/// Relative, for losses: PyTorch's own in f32 are about 1e-7 from those in f64.
const LOSS_TOLERANCE: f64 = 1e-6;

/// Relative to a tensor's largest gradient: PyTorch's own in f32 are up to 2.8e-6 from those in f64.
const GRADIENT_TOLERANCE: f64 = 1e-5;

#[test]
fn trainings_logits_are_pytorchs_at_every_exit() {
    for name in MODELS {
        let tensors = Fixture::new(name).tensors();
        let (shape, inputs) = tensors.ids("input_ids");
        let mut trainee = Trainee::new(name, shape[0], shape[1]);
        for exit_layer in 1..=trainee.layers() {
            let found = trainee.network.logits(StepWeights::floats(&trainee.weights), inputs, exit_layer);
            let (_, expected) = tensors.floats(&format!("logits.exit_layer_{exit_layer}"));
            // As in golden_model.rs.
            assert_close(&format!("{name}, exit {exit_layer}"), &found, expected, 1e-5);
        }
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
    for name in MODELS {
        let fixture = Fixture::new(name);
        let model = Arc::new(Llama::load(fixture.folder(), &Formats::all(Format::F32)).unwrap());
        let tensors = fixture.tensors();
        let (shape, inputs) = tensors.ids("input_ids");
        let mut trainee = Trainee::new(name, shape[0], shape[1]);
        // The whole batch, and a sample that comes alone and is shorter than the room for it.
        for inputs in [inputs, &inputs[..shape[1] / 2]] {
            for exit_layer in 1..=trainee.layers() {
                let found = trainee.network.logits(StepWeights::floats(&trainee.weights), inputs, exit_layer);
                let samples = inputs.chunks(shape[1]);
                let engine: Vec<_> = samples.flat_map(|s| engine_logits(&model, s, exit_layer)).collect();
                assert_eq!(found.len(), engine.len());
                let difference: Vec<_> = found.iter().zip(&engine).map(|(found, e)| found - e).collect();
                assert!(difference.iter().all(|difference| difference.is_finite()), "{name}");
                let (apart, most) = (largest(&difference), largest(&engine));
                let what = format!("{name}, {} tokens, exit {exit_layer}", inputs.len());
                assert!(apart <= 1e-5 * most, "{what}: {apart:.1e} apart, the largest logit is {most}");
            }
        }
    }
}

/// The plan of a fixture's block: everything runs, or what the block's `keep` and `p` say, drawn and rescaled
/// as training does it.
fn plan(block: &Value, layers: usize, samples: usize, length: usize) -> Plan {
    let counted = exits(layers).into_iter().map(|(exit, weight)| (exit, weight as f32)).collect();
    let mut plan = Plan::full(layers, samples, length, counted);
    if block["keep"].is_array() {
        let (dropout, batch) = layer_dropout(block, samples);
        for (layer, (kept, scale)) in plan.kept.iter_mut().zip(&mut plan.scale).enumerate() {
            dropout.keep(batch, layer, samples, kept);
            *scale = dropout.scale(0, layer) as f32;
        }
    }
    plan
}

/// The layer dropout of a fixture's block, and a micro-batch whose draws are exactly its `keep`.
fn layer_dropout(block: &Value, samples: usize) -> (LayerDropout, MicroBatch) {
    let p = numbers(&block["p"]);
    let rescale = block["rescale"].as_bool().unwrap();
    let keys = format!("shape = \"linear\"\nnormalize = \"none\"\np_max = {}", p[p.len() - 1]);
    let keys = format!("{keys}\ndrop_last = true\nrescale = {rescale}");
    let dropout = LayerDropout::new(&recipe(p.len(), &keys)).unwrap();
    for (layer, &p) in p.iter().enumerate() {
        assert!((dropout.probability(0, layer) - p).abs() < 1e-12, "the fixture's probabilities");
    }
    let wanted: Vec<Vec<usize>> = block["keep"].as_array().unwrap().iter().map(kept_samples).collect();
    let mut kept = Vec::new();
    let batch = (0..100_000).map(|index| MicroBatch { step: 0, index }).find(|&batch| {
        wanted.iter().enumerate().all(|(layer, wanted)| {
            dropout.keep(batch, layer, samples, &mut kept);
            kept == *wanted
        })
    });
    (dropout, batch.expect("such draws among so many micro-batches"))
}

/// The samples that a row of `keep` does not drop.
fn kept_samples(row: &Value) -> Vec<usize> {
    let row = numbers(row);
    (0..row.len()).filter(|&sample| row[sample] == 1.0).collect()
}

#[track_caller]
fn assert_gradients(what: &str, trainee: &Trainee, expected: &Tensors, prefix: &str) {
    for (spec, range) in trainee.network.layout().tensors() {
        let (_, want) = expected.floats(&format!("{prefix}grad.{}", spec.name));
        // A layer that every sample skipped has a gradient of exactly zero.
        let tolerance = GRADIENT_TOLERANCE * largest(want);
        assert_close(&format!("{what}.{}", spec.name), &trainee.gradients[range], want, tolerance);
    }
}

#[test]
fn losses_and_every_weights_gradient_are_pytorchs() {
    for name in TRAINED {
        let fixture = Fixture::new(name);
        let (tensors, expected) = (fixture.tensors(), fixture.json());
        let (shape, inputs) = tensors.ids("input_ids");
        let (_, labels) = tensors.ids("labels");
        // One network for all: nothing of a batch may be left for the next.
        let mut trainee = Trainee::new(name, shape[0], shape[1]);
        let (dropped, rescaled) = (&expected["layer_dropout"], &expected["layer_dropout_rescale"]);
        for (prefix, block) in
            [("dropout.", dropped), ("", &expected["loss"]), ("dropout_rescale.", rescaled)]
        {
            let what = format!("{name}, {prefix}grad");
            let plan = plan(block, trainee.layers(), shape[0], shape[1]);
            let Trainee { network, weights, gradients } = &mut trainee;
            gradients.fill(0.0);
            let losses = network.loss_and_gradients(
                StepWeights::floats(weights),
                Batch { inputs, labels },
                &plan,
                gradients,
            );
            assert_losses(&what, &losses, (&block["exit_losses"], &block["total"]), LOSS_TOLERANCE);
            assert_gradients(&what, &trainee, &tensors, prefix);
        }
    }
}

/// Exits that learn from the last layer's logits. Positions that are scored in several chunks, and exits that
/// share one, have a test beside the head.
#[test]
fn exits_learn_from_the_last_layer_as_in_pytorch() {
    let fixture = Fixture::new("distillation");
    let (tensors, expected) = (fixture.tensors(), fixture.json());
    let (shape, inputs) = tensors.ids("input_ids");
    let (_, labels) = tensors.ids("labels");
    let mut trainee = Trainee::new("gqa-untied", shape[0], shape[1]);
    trainee.network = trainee.network.with_teacher();
    for (name, loss) in [("kl", TeacherLoss::Kl), ("lk", TeacherLoss::Lk)] {
        let block = &expected[name];
        let share = number(&block["share"]) as f32;
        let exits = exits(trainee.layers()).into_iter().map(|(exit, weight)| (exit, weight as f32)).collect();
        let plan = Plan {
            distillation: Some(Distillation { share, loss }),
            ..Plan::full(trainee.layers(), shape[0], shape[1], exits)
        };
        let Trainee { network, weights, gradients } = &mut trainee;
        gradients.fill(0.0);
        let batch = Batch { inputs, labels };
        let losses = network.loss_and_gradients(StepWeights::floats(weights), batch, &plan, gradients);
        for (exit, (found, expected)) in
            losses.into_iter().zip(numbers(&block["cross_entropies"])).enumerate()
        {
            assert_near(&format!("{name}, exit {exit}"), found, expected, LOSS_TOLERANCE);
        }
        assert_gradients(&format!("{name}, grad"), &trainee, &tensors, &format!("{name}."));
    }
}

#[test]
fn every_kernels_table_gives_pytorchs_gradients() {
    assert_passes_with_every_table("losses_and_every_weights_gradient_are_pytorchs");
}

#[test]
fn micro_batches_add_up_to_pytorchs_gradient() {
    for name in TRAINED {
        let tensors = Fixture::new(name).tensors();
        let (shape, inputs) = tensors.ids("input_ids");
        let (_, labels) = tensors.ids("labels");
        let mut trainee = Trainee::new(name, shape[0], shape[1]);
        // One sample and then the rest, each with its share of the mean.
        let cut = shape[1];
        for (inputs, labels) in [(&inputs[..cut], &labels[..cut]), (&inputs[cut..], &labels[cut..])] {
            let samples = inputs.len() / shape[1];
            trainee.accumulate(Batch { inputs, labels }, samples, samples as f64 / shape[0] as f64);
        }
        assert_gradients(&format!("{name}, in parts, grad"), &trainee, &tensors, "");
    }
}
