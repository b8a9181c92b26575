//! Forward and back through the whole model, over buffers made once.
//!
//! The forward pass keeps each layer's intermediate results; the backward pass walks back through
//! them. Each active exit's fused head runs on the way back and adds its gradient where the exit
//! leaves the residual stream.

mod buffers;
mod layer;

use crate::ops::exit_head;
use crate::ops::heads::Angles;
use crate::ops::{attention, embedding, heads, linear};
use crate::parameters::Layout;
use buffers::{Saved, Scratch};
use offramp_model::{Config, Rope};

/// A model's shape, and room for a forward and backward pass over a batch.
#[derive(Debug)]
pub struct Network {
    config: Config,
    layout: Layout,
    sequence: usize,
    angles: Angles,
    stream: Vec<Vec<f32>>, // [L + 1][samples · sequence, hidden]: before each layer and after the last
    saved: Vec<Saved>,     // [L]
    d_stream: Vec<f32>,    // [samples · sequence, hidden]
    scratch: Scratch,
    head: exit_head::Scratch,
}

/// Which samples run through which layers, and which exits count how much.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Samples that each layer runs, ascending, `[L]`.
    pub kept: Vec<Vec<usize>>,
    /// What each layer's contribution to the residual stream is multiplied by, `[L]`.
    pub scale: Vec<f32>,
    /// Exit layers `1..=L`, ascending, and the weight of each one's loss.
    pub exits: Vec<(usize, f32)>,
}

impl Plan {
    /// Every layer for every sample, and these exits.
    pub fn full(layers: usize, samples: usize, exits: Vec<(usize, f32)>) -> Self {
        Self { kept: vec![(0..samples).collect(); layers], scale: vec![1.0; layers], exits }
    }
}

/// Tokens and those that follow them, `[samples, sequence]` each.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// What the model sees.
    pub inputs: &'a [u32],
    /// What it should say.
    pub labels: &'a [u32],
}

impl Network {
    /// Room for batches of up to `samples` sequences of `sequence` tokens.
    pub fn new(config: &Config, samples: usize, sequence: usize) -> Self {
        let (layers, tokens) = (config.num_hidden_layers, samples * sequence);
        let rows = || vec![0.0; tokens * config.hidden_size];
        let (cos, sin) = Rope::new(config).table(0..sequence);
        let head = exit_head::Shape { tokens, hidden: config.hidden_size, vocab: config.vocab_size };
        Self {
            layout: Layout::new(config),
            sequence,
            angles: Angles::new(cos, sin, config.head_dim),
            stream: (0..=layers).map(|_| rows()).collect(),
            saved: (0..layers).map(|_| Saved::new(config, tokens)).collect(),
            d_stream: rows(),
            scratch: Scratch::new(config, samples, sequence),
            head: exit_head::Scratch::new(head),
            config: config.clone(),
        }
    }

    /// Where each weight lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What the model is.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Runs a batch forward and back; adds `Σ weight · ∂loss/∂w` over the plan's exits to `gradients`
    /// and returns each exit's mean cross-entropy, in the plan's order.
    ///
    /// # Panics
    /// If the batch is larger than the network's room, or ids leave the vocabulary.
    pub fn loss_and_gradients(
        &mut self,
        weights: &[f32],
        batch: Batch<'_>,
        plan: &Plan,
        gradients: &mut [f32],
    ) -> Vec<f64> {
        self.forward(weights, batch.inputs, plan);
        let tokens = batch.inputs.len() * self.config.hidden_size;
        self.d_stream[..tokens].fill(0.0);
        let mut losses = vec![0.0; plan.exits.len()];
        for depth in (1..=self.config.num_hidden_layers).rev() {
            if let Some(exit) = plan.exits.iter().position(|&(exit, _)| exit == depth) {
                losses[exit] = self.leave(weights, (depth, plan.exits[exit].1), batch.labels, gradients);
            }
            self.layer_backward(depth - 1, weights, plan, batch.inputs.len(), gradients);
        }
        let embedding = &mut gradients[self.layout.embed_tokens.clone()];
        embedding::backward(batch.inputs, &self.d_stream[..tokens], self.config.hidden_size, embedding);
        losses
    }

    /// The mean cross-entropy of a batch at each of `exits`, without dropout.
    ///
    /// # Panics
    /// As [`Network::loss_and_gradients`].
    pub fn losses(&mut self, weights: &[f32], batch: Batch<'_>, exits: &[usize]) -> Vec<f64> {
        let samples = batch.inputs.len() / self.sequence;
        let plan = Plan::full(self.config.num_hidden_layers, samples, Vec::new());
        self.forward(weights, batch.inputs, &plan);
        let head = self.head_shape(batch.inputs.len());
        let loss = |&exit: &usize| {
            let x = &self.stream[exit][..head.tokens * head.hidden];
            let weights = head_weights(&self.config, &self.layout, weights);
            exit_head::loss(head, x, weights, batch.labels, &mut self.head)
        };
        exits.iter().map(loss).collect()
    }

    /// Logits after `exit_layer` layers, `[samples · sequence, vocab]`.
    ///
    /// # Panics
    /// As [`Network::loss_and_gradients`].
    pub fn logits(&mut self, weights: &[f32], inputs: &[u32], exit_layer: usize) -> Vec<f32> {
        let samples = inputs.len() / self.sequence;
        let plan = Plan::full(self.config.num_hidden_layers, samples, Vec::new());
        self.forward(weights, inputs, &plan);
        let head = self.head_shape(inputs.len());
        let x = &self.stream[exit_layer][..head.tokens * head.hidden];
        exit_head::logits(head, x, head_weights(&self.config, &self.layout, weights), &mut self.head)
    }

    fn forward(&mut self, weights: &[f32], inputs: &[u32], plan: &Plan) {
        let hidden = self.config.hidden_size;
        assert!(inputs.len() * hidden <= self.d_stream.len(), "a batch larger than the network's room");
        let stream = &mut self.stream[0][..inputs.len() * hidden];
        embedding::forward(inputs, &weights[self.layout.embed_tokens.clone()], hidden, stream);
        for layer in 0..self.config.num_hidden_layers {
            self.layer_forward(layer, weights, plan, inputs.len());
        }
    }

    /// Runs the head at an exit and adds its gradient to the residual stream's.
    fn leave(
        &mut self,
        weights: &[f32],
        (depth, weight): (usize, f32),
        labels: &[u32],
        gradients: &mut [f32],
    ) -> f64 {
        let head = self.head_shape(labels.len());
        let floats = head.tokens * head.hidden;
        let places = [self.layout.norm.clone(), self.layout.lm_head.clone()];
        let [d_norm, d_lm_head] = gradients.get_disjoint_mut(places).expect("two tensors do not overlap");
        let gradients = exit_head::Gradients { d_norm, d_lm_head, d_x: &mut self.d_stream[..floats] };
        let weights = head_weights(&self.config, &self.layout, weights);
        let x = &self.stream[depth][..floats];
        exit_head::loss_and_gradients(head, x, weights, (labels, weight), gradients, &mut self.head)
    }

    fn head_shape(&self, tokens: usize) -> exit_head::Shape {
        exit_head::Shape { tokens, hidden: self.config.hidden_size, vocab: self.config.vocab_size }
    }

    fn query_heads(&self) -> heads::Shape {
        let Config { num_attention_heads: heads, head_dim, .. } = self.config;
        heads::Shape { sequence: self.sequence, heads, head_dim }
    }

    fn key_heads(&self) -> heads::Shape {
        heads::Shape { heads: self.config.num_key_value_heads, ..self.query_heads() }
    }

    fn attention(&self) -> attention::Shape {
        let group = self.config.num_attention_heads / self.config.num_key_value_heads;
        attention::Shape { sequence: self.sequence, group, head_dim: self.config.head_dim }
    }
}

fn head_weights<'w>(config: &Config, layout: &Layout, weights: &'w [f32]) -> exit_head::Weights<'w> {
    exit_head::Weights {
        norm: &weights[layout.norm.clone()],
        eps: config.rms_norm_eps as f32,
        lm_head: &weights[layout.lm_head.clone()],
    }
}

/// Sizes of a linear layer over the packed rows.
fn sizes(tokens: usize, in_features: usize, out_features: usize) -> linear::Shape {
    linear::Shape { tokens, in_features, out_features }
}
