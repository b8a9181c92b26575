//! The network in training: forward, the exits' losses, and the way back, over buffers allocated once.
//!
//! The way back begins at the deepest exit and walks down. Where an exit is active its head runs there
//! and then, forward and backward in one sweep, and adds its gradient to the residual stream's.

use crate::layer::{self, Activations, Geometry, Route, Scratch};
use crate::ops::{Kept, embedding, exit_head};
use crate::parameters::{LayerWeights, Layout};
use crate::profile::{Clock, Op, OpTime, Way};
use crate::ternary::TernaryWeights;
use offramp_kernels::bit_linear;
use offramp_kernels::gemm::{self, Factors};
use offramp_model::Config;

/// A model's shape, and room for the forward and backward pass of one micro-batch. Weights and gradients
/// are the caller's, laid out as [`Network::layout`] says.
#[derive(Debug)]
pub struct Network {
    config: Config,
    layout: Layout,
    sequence: usize,
    geometry: Geometry,
    stream: Vec<Vec<f32>>, // layers + 1 of [rows, hidden]: before each layer, and after the last
    d_stream: Vec<f32>,    // [rows, hidden]
    activations: Vec<Activations>, // one for each layer
    scratch: Scratch,
    ternary: Option<TernaryWeights>,
    chunk: exit_head::Chunk,
}

/// Which samples run through which layers, and which exits count how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The samples that each layer runs for, increasing; `[layers]` of them.
    pub kept: Vec<Vec<usize>>,
    /// What each layer's contribution to the residual stream is multiplied by, `[layers]`.
    pub scale: Vec<f32>,
    /// Exit layers, increasing, and what the mean cross-entropy of each counts.
    pub exits: Vec<(usize, f32)>,
    /// The positions of the micro-batch over which each exit's mean is taken, increasing; `[exits]` of them.
    pub scored: Vec<Vec<usize>>,
    /// Whether the final norm and the head alone get a gradient: then nothing goes back through the layers.
    pub head_only: bool,
}

impl Plan {
    /// Every layer for every one of `samples` of `length` tokens, and these exits at every position.
    pub fn full(layers: usize, (samples, length): (usize, usize), exits: Vec<(usize, f32)>) -> Self {
        let scored = vec![(0..samples * length).collect(); exits.len()];
        Self {
            kept: vec![(0..samples).collect(); layers],
            scale: vec![1.0; layers],
            exits,
            scored,
            head_only: false,
        }
    }
}

/// One micro-batch: samples of the network's sequence length one after the other, or a single shorter one.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// Tokens, `[samples, sequence]`.
    pub inputs: &'a [u32],
    /// The token after each input, `[samples, sequence]`.
    pub labels: &'a [u32],
}

impl Network {
    /// Room for micro-batches of up to `samples` times `sequence` tokens.
    ///
    /// # Panics
    /// If `config` was not validated.
    pub fn new(config: &Config, samples: usize, sequence: usize) -> Self {
        let (hidden, layers, rows) = (config.hidden_size, config.num_hidden_layers, samples * sequence);
        let geometry = Geometry::new(config, sequence);
        let layout = Layout::new(config);
        gemm::prepare();
        Self {
            stream: (0..=layers).map(|_| vec![0.0; rows * hidden]).collect(),
            d_stream: vec![0.0; rows * hidden],
            activations: (0..layers).map(|_| Activations::new(&geometry, samples, sequence)).collect(),
            scratch: Scratch::new(&geometry, samples, sequence),
            chunk: exit_head::Chunk::new(rows, [hidden, config.vocab_size], Factors::F32),
            ternary: config.bit_linear.map(|_| TernaryWeights::new(&layout)),
            layout,
            config: config.clone(),
            sequence,
            geometry,
        }
    }

    /// The same, with every product's factors rounded so.
    #[must_use]
    pub fn with_factors(mut self, factors: Factors) -> Self {
        self.geometry.factors = factors;
        let Config { hidden_size, vocab_size, .. } = self.config;
        let rows = self.d_stream.len() / hidden_size;
        self.chunk = exit_head::Chunk::new(rows, [hidden_size, vocab_size], factors);
        self
    }

    /// The same, with a norm and a head for each exit but the last ([`Layout::with_own_heads`]).
    #[must_use]
    pub fn with_own_heads(mut self) -> Self {
        self.layout = self.layout.with_own_heads();
        self
    }

    /// From now on, the inputs of ternary matrices have codes of so many bits; nothing where there are none.
    pub fn set_activations(&mut self, activations: bit_linear::Activations) {
        for bit_linear in [&mut self.config.bit_linear, &mut self.geometry.bit_linear].into_iter().flatten() {
            bit_linear.activations = activations;
        }
    }

    /// What each op has taken so far.
    pub fn times(&self) -> Vec<OpTime> {
        self.clock().times()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.geometry.clock
    }

    /// Forgets what was timed since.
    pub(crate) fn reset_clock(&mut self, clock: Clock) {
        self.geometry.clock = clock;
    }

    /// What the network is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where each tensor stands in a buffer of weights or gradients.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Runs a micro-batch there and back. Adds the gradient of `Σ weight · CE` over the plan's exits to
    /// `gradients` and returns each exit's mean cross-entropy in nats, in the plan's order.
    ///
    /// # Panics
    /// If the batch does not fit, an id is beyond the vocabulary, or the plan is for another model.
    pub fn loss_and_gradients(
        &mut self,
        weights: &[f32],
        batch: Batch<'_>,
        plan: &Plan,
        gradients: &mut [f32],
    ) -> Vec<f64> {
        let deepest = plan.exits.last().map_or(0, |&(exit_layer, _)| exit_layer);
        self.run(weights, batch.inputs, plan, deepest);
        let floats = batch.inputs.len() * self.config.hidden_size;
        self.d_stream[..floats].fill(0.0);
        let mut losses = vec![0.0; plan.exits.len()];
        assert_eq!(plan.exits.len(), plan.scored.len(), "positions for each exit");
        let (mut waiting, mut swept) = (plan.exits.len(), plan.exits.len());
        for depth in (0..=deepest).rev() {
            if waiting > 0 && plan.exits[waiting - 1].0 == depth {
                if waiting == swept {
                    swept = self.exits(weights, batch, (plan, waiting), gradients, &mut losses);
                }
                waiting -= 1;
                self.give(plan, (swept, waiting), floats);
            }
            if depth > 0 && !plan.head_only {
                self.layer_backward((depth - 1, batch.inputs.len()), weights, plan, gradients);
            }
        }
        assert!(waiting == 0, "exits in increasing order: {:?}", plan.exits);
        if !plan.head_only {
            let (d_stream, d_embed_tokens) =
                (&self.d_stream[..floats], &mut gradients[self.layout.embed_tokens()]);
            let hidden = self.config.hidden_size;
            let work = || embedding::backward(batch.inputs, d_stream, hidden, d_embed_tokens);
            self.geometry.clock.time(Op::Embedding, Way::Backward, 0.0, work);
        }
        losses
    }

    /// The cross-entropy of a micro-batch in nats, summed over its tokens, at each of `exits`, every
    /// layer running.
    ///
    /// # Panics
    /// As [`Network::loss_and_gradients`].
    pub fn nats(&mut self, weights: &[f32], batch: Batch<'_>, exits: &[usize]) -> Vec<f64> {
        self.run_all(weights, batch.inputs, exits.iter().copied().max().unwrap_or(0));
        let floats = batch.inputs.len() * self.config.hidden_size;
        let nats = |&exit: &usize| {
            let head = head((&self.config, &self.geometry), &self.layout, weights, exit);
            exit_head::forward(&self.stream[exit][..floats], batch.labels, head, &mut self.chunk)
        };
        exits.iter().map(nats).collect()
    }

    /// Logits of a micro-batch after `exit_layer` layers, every layer running: `[tokens, vocab]`.
    ///
    /// # Panics
    /// As [`Network::loss_and_gradients`].
    pub fn logits(&mut self, weights: &[f32], inputs: &[u32], exit_layer: usize) -> Vec<f32> {
        self.run_all(weights, inputs, exit_layer);
        let floats = inputs.len() * self.config.hidden_size;
        let head = head((&self.config, &self.geometry), &self.layout, weights, exit_layer);
        exit_head::logits(&self.stream[exit_layer][..floats], head, &mut self.chunk)
    }

    /// Runs the first `layers` layers for every sample.
    fn run_all(&mut self, weights: &[f32], inputs: &[u32], layers: usize) {
        let length = self.length(inputs.len());
        let plan = Plan::full(self.config.num_hidden_layers, (inputs.len() / length, length), Vec::new());
        self.run(weights, inputs, &plan, layers);
    }

    /// Runs the first `layers` layers, which leaves the stream after each of them.
    fn run(&mut self, weights: &[f32], inputs: &[u32], plan: &Plan, layers: usize) {
        let (floats, length) = (inputs.len() * self.config.hidden_size, self.length(inputs.len()));
        assert!(floats > 0 && floats <= self.d_stream.len(), "{} tokens do not fit", inputs.len());
        assert!(inputs.len().is_multiple_of(length), "samples of {length} tokens, not {}", inputs.len());
        assert!(weights.len() == self.layout.len(), "weights of the layout's length");
        let embed_tokens = &weights[self.layout.embed_tokens()];
        let (hidden, stream) = (self.config.hidden_size, &mut self.stream[0][..floats]);
        let work = || embedding::forward(inputs, embed_tokens, hidden, stream);
        self.geometry.clock.time(Op::Embedding, Way::Forward, 0.0, work);
        if let Some(ternary) = &mut self.ternary {
            let work = || ternary.quantise(weights, layers);
            self.geometry.clock.time(Op::Quantise, Way::Forward, 0.0, work);
        }
        for index in 0..layers {
            let (before, after) = self.stream.split_at_mut(index + 1);
            layer::forward(
                (&self.geometry, layer_weights(&self.layout, self.ternary.as_ref(), weights, index)),
                route(plan, index, length),
                &before[index][..floats],
                &mut self.activations[index],
                &mut self.scratch,
                &mut after[0][..floats],
            );
        }
    }

    /// The losses of the plan's exits before number `last`, as many from there down as share a chunk and a head; returns the
    /// first of them. Their gradients are added to the norm's and the head's, and wait in the chunk for the
    /// stream's. An exit that needs several chunks goes alone and does not wait.
    fn exits(
        &mut self,
        weights: &[f32],
        batch: Batch<'_>,
        (plan, last): (&Plan, usize),
        gradients: &mut [f32],
        losses: &mut [f64],
    ) -> usize {
        let floats = batch.inputs.len() * self.config.hidden_size;
        let deepest = plan.exits[last - 1].0;
        let places = self.layout.exit_head(deepest);
        let [norm, lm_head] = gradients.get_disjoint_mut(places.clone()).expect("two tensors do not overlap");
        let mut gradients = exit_head::Gradients { norm, lm_head };
        let head = head((&self.config, &self.geometry), &self.layout, weights, deepest);
        let scored = |index: usize| {
            let ((exit_layer, weight), positions) = (plan.exits[index], plan.scored[index].as_slice());
            let scale = (f64::from(weight) / positions.len() as f64) as f32;
            exit_head::Scored { x: &self.stream[exit_layer][..floats], positions, scale }
        };
        let (mut first, mut rows) = (last, 0);
        let shared = |index: usize| self.layout.exit_head(plan.exits[index].0) == places;
        while first > 0 && shared(first - 1) && rows + plan.scored[first - 1].len() <= self.chunk.rows() {
            first -= 1;
            rows += plan.scored[first].len();
        }
        let mut add = |index: usize, nats: f64| losses[index] += nats / plan.scored[index].len() as f64;
        if first < last {
            let group: Vec<_> = (first..last).map(scored).collect();
            let nats = exit_head::sweep(&group, batch.labels, head, &mut self.chunk, &mut gradients);
            nats.enumerate().for_each(|(index, nats)| add(first + index, nats));
            return first;
        }
        let alone = scored(last - 1);
        for positions in alone.positions.chunks(self.chunk.rows()) {
            let piece = [exit_head::Scored { positions, ..alone }];
            let nats = exit_head::sweep(&piece, batch.labels, head, &mut self.chunk, &mut gradients);
            add(last - 1, nats.sum());
            exit_head::give(&self.chunk, 0, positions, &mut self.d_stream[..floats]);
        }
        last - 1
    }

    /// Adds the gradient of exit number `index`'s hidden states, of those in the chunk from number `first` on, to the
    /// stream's.
    fn give(&mut self, plan: &Plan, (first, index): (usize, usize), floats: usize) {
        let positions = &plan.scored[index];
        if positions.len() <= self.chunk.rows() {
            let before = plan.scored[first..index].iter().map(Vec::len).sum();
            exit_head::give(&self.chunk, before, positions, &mut self.d_stream[..floats]);
        }
    }

    fn layer_backward(
        &mut self,
        (index, tokens): (usize, usize),
        weights: &[f32],
        plan: &Plan,
        gradients: &mut [f32],
    ) {
        let floats = tokens * self.config.hidden_size;
        let length = self.length(tokens);
        let weights = layer_weights(&self.layout, self.ternary.as_ref(), weights, index);
        let gradients = self.layout.layer_gradients(gradients, index);
        layer::backward(
            (&self.geometry, weights, gradients),
            route(plan, index, length),
            &self.stream[index][..floats],
            &mut self.activations[index],
            &mut self.scratch,
            &mut self.d_stream[..floats],
        );
    }

    /// Tokens of one sample in a micro-batch of so many.
    fn length(&self, tokens: usize) -> usize {
        self.sequence.min(tokens).max(1)
    }
}

/// The weights of a layer, and what they were last rounded to where they are ternary.
fn layer_weights<'a>(
    layout: &Layout,
    ternary: Option<&'a TernaryWeights>,
    weights: &'a [f32],
    index: usize,
) -> LayerWeights<'a> {
    LayerWeights {
        ternary: ternary.map(|ternary| ternary.layer(index)),
        ..layout.layer_weights(weights, index)
    }
}

fn route(plan: &Plan, layer: usize, length: usize) -> Route<'_> {
    Route { kept: Kept { samples: &plan.kept[layer], length }, scale: plan.scale[layer] }
}

fn head<'a>(
    (config, geometry): (&Config, &'a Geometry),
    layout: &Layout,
    weights: &'a [f32],
    exit_layer: usize,
) -> exit_head::Head<'a> {
    let [norm, lm_head] = layout.exit_head(exit_layer);
    exit_head::Head {
        norm: &weights[norm],
        eps: config.rms_norm_eps as f32,
        lm_head: &weights[lm_head],
        factors: geometry.factors,
        clock: &geometry.clock,
    }
}

#[cfg(test)]
mod tests;
