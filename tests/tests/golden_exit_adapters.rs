//! Exits with a norm and an adapter of their own, against PyTorch: the engine's logits and training's, the
//! losses, the gradient of every adapter; and that the model under them is as before.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_engine::{
    Adaptive, Draft, GenerateOptions, SamplingOptions, Session, Speculation, Workspace, generate,
};
use offramp_model::{Config, Format, Formats, Llama, Weights};
use offramp_tests::golden::{Fixture, Tensors, assert_close, assert_near, largest, number};
use offramp_train::network::{Batch, Distillation, Network, Plan, TeacherLoss};
use offramp_train::step_weights::StepWeights;
use std::fs;
use std::ops::ControlFlow;
use std::sync::Arc;
use tempfile::TempDir;

/// As in `golden_gradients.rs`.
const TOLERANCE: f64 = 1e-5;

/// The fixture's model with the adapters beside it, as a folder.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in [
        ("gqa-untied", "config.json"),
        ("gqa-untied", "model.safetensors"),
        ("exit-adapters", "exits.safetensors"),
    ] {
        fs::copy(Fixture::new(name).folder().join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn load(folder: &TempDir) -> Arc<Llama> {
    Arc::new(Llama::load(folder.path(), &Formats::all(Format::F32)).unwrap())
}

fn logits(model: &Arc<Llama>, tokens: &[u32], exit_layer: usize) -> Vec<f32> {
    let mut session = Session::new(model, tokens.len()).unwrap();
    session.set_exit_layer(exit_layer).unwrap();
    tokens.iter().flat_map(|&token| session.feed(&[token], &mut Workspace::new()).unwrap().to_vec()).collect()
}

#[test]
fn the_engines_logits_are_pytorchs() {
    let (tensors, folder) = (Fixture::new("exit-adapters").tensors(), folder());
    let (model, plain) = (load(&folder), Fixture::new("gqa-untied"));
    let plain = Arc::new(Llama::load(plain.folder(), &Formats::all(Format::F32)).unwrap());
    assert_eq!((model.adapter_exits(), plain.adapter_exits()), (vec![1, 3], vec![]));
    let (shape, inputs) = tensors.ids("input_ids");
    for exit_layer in 1..=4 {
        let found: Vec<f32> =
            inputs.chunks(shape[1]).flat_map(|tokens| logits(&model, tokens, exit_layer)).collect();
        let before: Vec<f32> =
            inputs.chunks(shape[1]).flat_map(|tokens| logits(&plain, tokens, exit_layer)).collect();
        if [1, 3].contains(&exit_layer) {
            let (_, expected) = tensors.floats(&format!("logits.exit_layer_{exit_layer}"));
            assert_close(&format!("exit {exit_layer}"), &found, expected, TOLERANCE);
            assert!(found != before);
        } else {
            assert!(found == before, "exit {exit_layer} is the model's own, to the bit");
        }
    }
}

/// Drafts come from the adapters, and the text is the plain model's without them.
#[test]
fn drafts_by_adapters_give_the_plain_text() {
    let model = load(&folder());
    let plain = Fixture::new("gqa-untied");
    let plain = Arc::new(Llama::load(plain.folder(), &Formats::all(Format::F32)).unwrap());
    let text = |model: &Arc<Llama>, speculation: &mut Speculation| {
        let mut session = Session::new(model, 48).unwrap();
        let sampling = SamplingOptions { temperature: 0.0, ..SamplingOptions::default() };
        let options = GenerateOptions { max_new_tokens: 40, sampling, ..GenerateOptions::default() };
        let found = generate(
            &mut session,
            &[3, 1, 4, 1, 5],
            &options,
            speculation,
            &mut Workspace::new(),
            &mut |_| ControlFlow::Continue(()),
        );
        let found = found.unwrap();
        (found.tokens, found.statistics.drafted)
    };
    let (expected, _) = text(&plain, &mut Speculation::off());
    let fixed = |exit_layer| Speculation::fixed(Draft { exit_layer, num_speculations: 3 });
    for mut speculation in [fixed(1), fixed(2), fixed(3), Speculation::auto(Adaptive::by_bytes())] {
        assert_eq!(text(&model, &mut speculation).0, expected);
    }
    assert!(text(&model, &mut fixed(3)).1 > 0);
}

/// A network over the fixture's model, and its weights with the adapters behind them.
fn trainee(samples: usize, length: usize, rank: usize) -> (Network, Vec<f32>) {
    let fixture = Fixture::new("gqa-untied");
    let config = Config::read(&fixture.folder().join("config.json")).unwrap();
    let network = Network::new(&config, samples, length).with_exit_adapters(&[1, 3], rank).with_teacher();
    let files = Weights::open(fixture.folder(), &config).unwrap();
    let exits = Tensors::read(&Fixture::new("exit-adapters").folder().join("exits.safetensors"));
    let mut weights = vec![0.0; network.layout().len()];
    for (spec, range) in network.layout().tensors() {
        match spec.name.starts_with("exits.") {
            true => weights[range].copy_from_slice(exits.floats(&spec.name).1),
            false => files.read(spec, &mut weights[range]).unwrap(),
        }
    }
    (network, weights)
}

#[test]
fn losses_and_gradients_are_pytorchs_and_the_model_has_none() {
    let fixture = Fixture::new("exit-adapters");
    let (tensors, expected) = (fixture.tensors(), fixture.json());
    let (shape, inputs) = tensors.ids("input_ids");
    let (_, labels) = tensors.ids("labels");
    let (mut network, weights) = trainee(shape[0], shape[1], number(&expected["rank"]) as usize);
    for exit_layer in [1, 3] {
        let found = network.logits(StepWeights::floats(&weights), inputs, exit_layer);
        let (_, expected) = tensors.floats(&format!("logits.exit_layer_{exit_layer}"));
        assert_close(&format!("training, exit {exit_layer}"), &found, expected, TOLERANCE);
    }
    let weight = |exit: usize| (exit, number(&expected["weights"][exit.to_string()]) as f32);
    let plan = Plan {
        distillation: Some(Distillation { share: 0.5, loss: TeacherLoss::Kl }),
        head_only: true,
        ..Plan::full(4, shape[0], shape[1], vec![weight(1), weight(3), (4, 1.0)])
    };
    let mut gradients = vec![0.0; weights.len()];
    let batch = Batch { inputs, labels };
    let losses = network.loss_and_gradients(StepWeights::floats(&weights), batch, &plan, &mut gradients);
    for (exit, found) in [1, 3, 4].into_iter().zip(losses) {
        let expected = number(&expected["cross_entropies"][exit.to_string()]);
        assert_near(&format!("exit {exit}"), found, expected, 1e-6);
    }
    for (spec, range) in network.layout().tensors() {
        let found = &gradients[range];
        if !spec.name.starts_with("exits.") {
            assert!(found.iter().all(|&gradient| gradient == 0.0), "{}", spec.name);
            continue;
        }
        let (_, expected) = tensors.floats(&format!("grad.{}", spec.name));
        assert_close(&spec.name, found, expected, TOLERANCE * largest(expected));
    }
}

#[test]
fn a_bad_file_of_adapters_is_one_clear_line() {
    let folder = folder();
    let path = folder.path().join("exits.safetensors");
    let good = fs::read(&path).unwrap();
    let renamed = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = good.windows(from.len()).position(|bytes| bytes == from.as_bytes()).unwrap();
        let mut bytes = good.clone();
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        bytes
    };
    let cases = [
        (good[..good.len() - 1].to_vec(), "exits.safetensors"),
        (Vec::new(), "it is empty"),
        (renamed("exits.3.norm.weight", "exits.7.norm.weight"), "exits.7.norm.weight"),
        (renamed("exits.3.norm.weight", "exits.2.norm.weight"), "exits.3.norm.weight"),
        (renamed("exits.3.up_proj", "exits.3.up_prog"), "exits.3.up_pro"),
        (renamed("exits.3.norm.weight", "exodus3.norm.weight"), "exodus3.norm.weight"),
    ];
    for (bytes, part) in cases {
        fs::write(&path, bytes).unwrap();
        let message = Llama::load(folder.path(), &Formats::default()).unwrap_err().to_string();
        assert!(message.contains(part) && !message.contains('\n'), "{message:?} does not say {part:?}");
    }
}
