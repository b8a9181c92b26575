//! What the golden tests of training share: the card's recipe, a fixture's model in training, its losses.

use crate::golden::{Fixture, assert_near, number, numbers};
use offramp_model::{Config, Weights};
use offramp_train::Recipe;
use offramp_train::early_exit::EarlyExitLoss;
use offramp_train::network::{Batch, Network, Plan};
use offramp_train::step_weights::StepWeights;
use serde_json::Value;
use std::path::Path;

/// A recipe with this many layers and these keys of `[layer_dropout]`, whose early-exit loss is the card's.
///
/// # Panics
/// If there is no such recipe.
pub fn recipe(layers: usize, layer_dropout: &str) -> Recipe {
    let text = format!(
        "[data]\ncorpus = \"none\"\n[model]\nnum_hidden_layers = {layers}\n[layer_dropout]\n{layer_dropout}"
    );
    Recipe::from_toml(&text, Path::new("golden.toml")).expect("a recipe")
}

/// The exits of the card's loss, and the weight of each one.
pub fn exits(layers: usize) -> Vec<(usize, f64)> {
    EarlyExitLoss::new(&recipe(layers, "shape = \"none\"")).exits(0)
}

/// A fixture's model in training.
#[derive(Debug)]
pub struct Trainee {
    /// Room for its micro-batches.
    pub network: Network,
    /// As the fixture's files have them.
    pub weights: Vec<f32>,
    /// Zero at first.
    pub gradients: Vec<f32>,
}

impl Trainee {
    /// The model of a fixture, with room for `samples` of `sequence` tokens.
    ///
    /// # Panics
    /// If the fixture cannot be read.
    pub fn new(name: &str, samples: usize, sequence: usize) -> Self {
        let fixture = Fixture::new(name);
        let config = Config::read(&fixture.folder().join("config.json")).expect("a config");
        let files = Weights::open(fixture.folder(), &config).expect("weights");
        let network = Network::new(&config, samples, sequence);
        let (mut weights, gradients) = (vec![0.0; network.layout().len()], vec![0.0; network.layout().len()]);
        for (spec, range) in network.layout().tensors() {
            weights[range].copy_from_slice(files.take(spec).expect("a tensor").as_slice());
        }
        Self { network, weights, gradients }
    }

    /// Decoder layers.
    pub fn layers(&self) -> usize {
        self.network.config().num_hidden_layers
    }

    /// The losses of a micro-batch in which every layer runs and the weights of the card's exits are
    /// multiplied by `share`; the gradient is added.
    pub fn accumulate(&mut self, batch: Batch<'_>, samples: usize, share: f64) -> Vec<f64> {
        let counted = exits(self.layers()).into_iter().map(|(exit, weight)| (exit, (weight * share) as f32));
        let length = batch.inputs.len() / samples;
        let plan = Plan::full(self.layers(), samples, length, counted.collect());
        self.network.loss_and_gradients(StepWeights::floats(&self.weights), batch, &plan, &mut self.gradients)
    }
}

/// Asserts that there is a loss for every exit, and that each and their weighed sum `total` are PyTorch's.
///
/// # Panics
/// If not.
#[track_caller]
pub fn assert_losses(what: &str, losses: &[f64], (expected, total): (&Value, &Value), tolerance: f64) {
    let (exits, expected) = (exits(losses.len()), numbers(expected));
    assert_eq!((losses.len(), exits.len()), (expected.len(), expected.len()), "{what}: a loss for each exit");
    for ((exit_layer, _), (&found, &expected)) in exits.iter().zip(losses.iter().zip(&expected)) {
        assert_near(&format!("{what}, loss at exit {exit_layer}"), found, expected, tolerance);
    }
    let found = losses.iter().zip(&exits).map(|(loss, (_, weight))| loss * weight).sum();
    assert_near(&format!("{what}, loss"), found, number(total), tolerance);
}
