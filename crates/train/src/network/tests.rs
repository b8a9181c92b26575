//! The whole network against differences, against the engine's forward, and with layers dropped.

use super::*;
use crate::early_exit::EarlyExitLoss;
use crate::ops::finite_difference::assert_gradient_at;
use crate::parameters::initial;
use crate::recipe::Recipe;
use offramp_model::Llama;
use std::cell::RefCell;
use std::path::Path;

const LENGTH: usize = 7;
const SAMPLES: usize = 3;
/// The loss is about 2 and summed of `f32`: a rounding of it over the step of a difference.
const NOISE: f64 = 2e-5;

fn recipe(keys: &str) -> Recipe {
    let text = format!(
        "[data]\ncorpus = \"c\"\n[training]\nseed = 3\nsteps = 50\nsequence_length = 7\n[schedule]\nwarmup_steps = 0\n\
         [model]\nhidden_size = 12\nintermediate_size = 10\nnum_hidden_layers = 4\nnum_attention_heads = 6\n\
         num_key_value_heads = 2\nhead_dim = 4\ninitializer_range = 0.4\n{keys}"
    );
    Recipe::from_toml(&text, Path::new("r.toml")).unwrap()
}

fn network(recipe: &Recipe) -> (Network, Vec<f32>) {
    let config = recipe.config(11, None).unwrap();
    let weights = initial(&Layout::new(&config), recipe.model.initializer_range, 5);
    (Network::new(&config, SAMPLES, LENGTH), weights)
}

fn exits(recipe: &Recipe) -> Vec<(usize, f32)> {
    EarlyExitLoss::new(recipe).exits(0).into_iter().map(|(exit, weight)| (exit, weight as f32)).collect()
}

fn tokens(seed: u32) -> Vec<u32> {
    (0..(SAMPLES * LENGTH) as u32).map(|i| (i * i * 7 + i * 3 + seed) % 11).collect()
}

/// Every tensor's gradient against differences of the loss through the same plan; tensors in `unused`,
/// whose gradient must be zero, aside.
fn assert_gradients((mut network, mut weights): (Network, Vec<f32>), plan: &Plan, unused: &[String]) {
    let (inputs, labels) = (tokens(0), tokens(1));
    let batch = Batch { inputs: &inputs, labels: &labels };
    let mut gradients = vec![0.0; weights.len()];
    network.loss_and_gradients(StepWeights::floats(&weights), batch, plan, &mut gradients);
    let layout = network.layout().clone();
    for (spec, range) in layout.tensors() {
        let gradient = &gradients[range.clone()];
        if unused.iter().any(|prefix| spec.name.starts_with(prefix)) {
            assert!(gradient.iter().all(|&gradient| gradient == 0.0), "{}", spec.name);
            continue;
        }
        let before = weights[range.clone()].to_vec();
        let state = RefCell::new((&mut network, &mut weights, vec![0.0; gradients.len()]));
        // The ops' own tests try every element.
        let some = (0..before.len()).step_by(before.len().div_ceil(9));
        assert_gradient_at(&spec.name, &before, gradient, some, NOISE, |values| {
            let (network, weights, ignored) = &mut *state.borrow_mut();
            weights[range.clone()].copy_from_slice(values);
            let losses = network.loss_and_gradients(StepWeights::floats(weights), batch, plan, ignored);
            losses.iter().zip(&plan.exits).map(|(loss, exit)| loss * f64::from(exit.1)).sum()
        });
        weights[range].copy_from_slice(&before);
    }
}

#[test]
fn every_gradient_is_that_of_differences() {
    for keys in ["tie_word_embeddings = false", "tie_word_embeddings = true"] {
        let recipe = recipe(keys);
        assert_gradients(network(&recipe), &Plan::full(4, SAMPLES, LENGTH, exits(&recipe)), &[]);
    }
}

/// With one value in all, losses are the shared head's, and gradients sum to its.
#[test]
fn exits_with_heads_of_their_own_learn_apart() {
    let recipe = recipe("");
    let plan = Plan::full(4, SAMPLES, LENGTH, exits(&recipe));
    let (inputs, labels) = (tokens(0), tokens(1));
    let batch = Batch { inputs: &inputs, labels: &labels };
    let (mut shared, mut weights) = network(&recipe);
    let mut expected = vec![0.0; weights.len()];
    let losses = shared.loss_and_gradients(StepWeights::floats(&weights), batch, &plan, &mut expected);
    let [norm, lm_head] = shared.layout().exit_head(2);
    let mut own = Network::new(shared.config(), SAMPLES, LENGTH).with_own_heads();
    for _ in 1..4 {
        weights.extend_from_within(norm.clone());
        weights.extend_from_within(lm_head.clone());
    }
    let mut gradients = vec![0.0; weights.len()];
    assert_eq!(own.loss_and_gradients(StepWeights::floats(&weights), batch, &plan, &mut gradients), losses);
    assert_eq!(
        own.nats(StepWeights::floats(&weights), batch, &[1, 3, 4]),
        shared.nats(StepWeights::floats(&weights[..expected.len()]), batch, &[1, 3, 4])
    );
    for exit_layer in 1..4 {
        for (own, shared) in
            own.layout().exit_head(exit_layer).into_iter().zip([norm.clone(), lm_head.clone()])
        {
            let part = gradients[own].to_vec();
            assert!(part.iter().any(|&gradient| gradient != 0.0), "exit {exit_layer}");
            gradients[shared].iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
    let near = |(found, expected): (&f32, &f32)| (found - expected).abs() < 1e-5;
    assert!(gradients.iter().zip(&expected).all(near));
    assert_gradients((own, weights), &plan, &[]);
}

/// Dropped samples, a layer that is dropped for all of them, and rescaling.
#[test]
fn gradients_through_dropped_layers_are_those_of_differences() {
    let recipe = recipe("");
    let kept = vec![vec![0, 1, 2], vec![0, 2], vec![], vec![1]];
    let whole = Plan::full(4, SAMPLES, LENGTH, exits(&recipe));
    let plan = Plan { kept, scale: vec![1.0, 1.25, 3.0, 2.0], ..whole };
    assert_gradients(network(&recipe), &plan, &["model.layers.2.".to_owned()]);
}

#[test]
fn gradients_of_exits_scored_here_and_there_are_those_of_differences() {
    let recipe = recipe("[early_exit]\ncurriculum = \"sampled\"\nsample_fraction = 0.3");
    let mut plan = Plan::full(4, SAMPLES, LENGTH, exits(&recipe));
    let loss = EarlyExitLoss::new(&recipe);
    for ((exit, _), scored) in plan.exits.iter().zip(&mut plan.scored) {
        loss.positions(2, *exit, SAMPLES * LENGTH, scored);
    }
    assert_eq!(plan.scored.iter().map(Vec::len).collect::<Vec<_>>(), [6, 6, 6, 21]);
    assert_gradients(network(&recipe), &plan, &[]);
}

/// Biases, norms of heads, windows and layers without rotation.
const FAMILIES: [&str; 5] = [
    "attention_bias = true\nmlp_bias = true",
    "model_type = \"qwen2\"\ntie_word_embeddings = true",
    "model_type = \"qwen3\"\nattention_bias = true",
    "model_type = \"mistral\"\nsliding_window = 3",
    "model_type = \"smollm3\"\nno_rope_layer_interval = 2",
];

/// A family's network, with biases that are not zero.
fn family(keys: &str) -> (Recipe, Network, Vec<f32>) {
    let recipe = recipe(keys);
    let (network, mut weights) = network(&recipe);
    for (spec, range) in network.layout().tensors().filter(|(spec, _)| spec.name.ends_with(".bias")) {
        let values = (0..range.len()).map(|i| ((i * i + spec.name.len()) % 7) as f32 / 10.0 - 0.3);
        weights[range.clone()].iter_mut().zip(values).for_each(|(weight, value)| *weight = value);
    }
    (recipe, network, weights)
}

#[test]
fn gradients_of_families_are_those_of_differences() {
    for keys in FAMILIES {
        let (recipe, network, weights) = family(keys);
        let whole = Plan::full(4, SAMPLES, LENGTH, exits(&recipe));
        let plan = Plan { kept: vec![vec![0, 1, 2], vec![0, 2], vec![1], vec![0, 1, 2]], ..whole };
        assert_gradients((network, weights), &plan, &[]);
    }
}

/// Invariant 6 of the house: training's forward and the engine's are one function.
#[test]
fn logits_at_every_exit_are_the_models() {
    for keys in std::iter::once("").chain(FAMILIES) {
        let (_, network, weights) = family(keys);
        assert_logits_are_the_models(network, &weights);
    }
}

fn assert_logits_are_the_models(mut network: Network, weights: &[f32]) {
    let layout = network.layout().clone();
    let model = Llama::from_weights(network.config().clone(), |wanted| {
        let (_, range) = layout.tensors().find(|(spec, _)| *spec == wanted).unwrap();
        Ok(weights[range].to_vec())
    });
    let (model, tokens) = (model.unwrap(), tokens(2));
    for exit_layer in 1..=4 {
        let found = network.logits(StepWeights::floats(weights), &tokens, exit_layer);
        for (sample, found) in tokens.chunks(LENGTH).zip(found.chunks(LENGTH * 11)) {
            let (mut hidden, mut cache) = (model.new_hidden(), model.new_cache(LENGTH));
            let mut expected = Vec::new();
            model.embed(sample, &mut hidden).unwrap();
            model
                .forward(
                    0..exit_layer,
                    &mut hidden,
                    &mut offramp_model::Batch::one(&mut cache),
                    &mut offramp_model::Scratch::new(),
                )
                .unwrap();
            model.head(&hidden, 0..LENGTH, &mut expected, &mut offramp_model::Scratch::new());
            let worst = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "exit {exit_layer}: {worst}");
        }
    }
}

#[test]
fn micro_batches_add_up() {
    let recipe = recipe("");
    let (mut network, weights) = network(&recipe);
    let (inputs, labels) = (tokens(0), tokens(1));
    let batch = Batch { inputs: &inputs, labels: &labels };
    let [mut whole, mut parts] = [vec![0.0; weights.len()], vec![0.0; weights.len()]];
    network.loss_and_gradients(
        StepWeights::floats(&weights),
        batch,
        &Plan::full(4, SAMPLES, LENGTH, exits(&recipe)),
        &mut whole,
    );
    let share = exits(&recipe).into_iter().map(|(exit, weight)| (exit, weight / SAMPLES as f32)).collect();
    let share = Plan::full(4, 1, LENGTH, share);
    for (inputs, labels) in inputs.chunks(LENGTH).zip(labels.chunks(LENGTH)) {
        network.loss_and_gradients(
            StepWeights::floats(&weights),
            Batch { inputs, labels },
            &share,
            &mut parts,
        );
    }
    for (spec, range) in network.layout().tensors() {
        let pairs = whole[range.clone()].iter().zip(&parts[range]);
        let worst = pairs.map(|(whole, parts)| (whole - parts).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{}: {worst}", spec.name);
    }
}

/// The last window of a validation stream is shorter than the others.
#[test]
fn a_shorter_sample_has_the_losses_of_its_tokens() {
    let recipe = recipe("");
    let (mut network, weights) = network(&recipe);
    let (inputs, labels) = (&tokens(0)[..4], &tokens(1)[..4]);
    let found = network.nats(StepWeights::floats(&weights), Batch { inputs, labels }, &[2, 4]);
    for (exit_layer, found) in [2, 4].into_iter().zip(found) {
        // What comes later does not matter to the first four.
        let logits = network.logits(StepWeights::floats(&weights), &tokens(0), exit_layer);
        let nats = logits.chunks(11).zip(labels).map(|(row, &label)| {
            let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            total.ln() - f64::from(row[label as usize])
        });
        assert!((nats.sum::<f64>() - found).abs() < 1e-5, "exit {exit_layer}");
    }
}

#[test]
#[should_panic(expected = "22 tokens do not fit")]
fn a_batch_that_does_not_fit_is_refused() {
    let (mut network, weights) = network(&recipe(""));
    let tokens = [0; SAMPLES * LENGTH + 1];
    network.nats(StepWeights::floats(&weights), Batch { inputs: &tokens, labels: &tokens }, &[4]);
}

/// What does not learn gets no gradient, and what does gets the one it always had.
#[test]
fn a_head_alone_has_its_gradient_of_the_whole() {
    let recipe = recipe("");
    let (mut network, weights) = network(&recipe);
    let (inputs, labels) = (tokens(0), tokens(1));
    let mut found = |head_only| {
        let plan = Plan { head_only, ..Plan::full(4, SAMPLES, LENGTH, exits(&recipe)) };
        let mut gradients = vec![0.0; weights.len()];
        let batch = Batch { inputs: &inputs, labels: &labels };
        network.loss_and_gradients(StepWeights::floats(&weights), batch, &plan, &mut gradients);
        gradients
    };
    let (whole, head) = (found(false), found(true));
    let first = network.layout().norm().start;
    assert!(head[..first].iter().all(|&gradient| gradient == 0.0));
    assert!(head[first..] == whole[first..] && head[first..].iter().any(|&gradient| gradient != 0.0));
}
