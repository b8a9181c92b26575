//! The network in training: forward, the exits' losses, and backward, over buffers allocated once.
//!
//! The backward begins at the deepest exit and walks down. At an active exit its head runs forward and
//! backward in one sweep, and the gradient of the exit's hidden states is added to the residual stream's.

mod exits;
mod parts;
mod plan;

pub use crate::exit_head::Distillation;
pub use crate::ops::distillation::TeacherLoss;
pub(crate) use parts::{Part, Parts};
pub use plan::{Batch, Plan};

use crate::exit_head::{Chunk, Head};
use crate::layer::{self, Activations, Buffers, Context, Products, RotaryTable, Scratch, Sizes};
use crate::ops::{adapter, embedding, values};
use crate::parameters::Layout;
use crate::profile::{Clock, Op, OpTime, Pass};
use crate::step_weights::StepWeights;
use offramp_kernels::bit_linear;
use offramp_kernels::gemm::{self, Factors};
use offramp_model::Config;

/// A model, and buffers for the forward and backward of one micro-batch. Weights and gradients are the
/// caller's, laid out as [`Network::layout`] says.
#[derive(Debug)]
pub struct Network {
    model: Model,
    stream: Vec<Vec<f32>>, // layers + 1 of [rows, hidden]: before each layer, and after the last
    d_stream: Vec<f32>,    // [rows, hidden]
    activations: Vec<Activations>, // one for each layer
    scratch: Scratch,
    chunk: Chunk,
}

/// What stays the same from batch to batch.
#[derive(Debug)]
struct Model {
    config: Config,
    layout: Layout,
    sequence: usize,
    sizes: Sizes,
    rotary: RotaryTable,
    products: Products,
}

impl Network {
    /// Buffers for micro-batches of up to `samples` times `sequence` tokens.
    ///
    /// # Panics
    /// If `config` was not validated.
    pub fn new(config: &Config, samples: usize, sequence: usize) -> Self {
        let (hidden, layers, rows) = (config.hidden_size, config.num_hidden_layers, samples * sequence);
        let sizes = Sizes::new(config);
        gemm::prepare();
        Self {
            stream: (0..=layers).map(|_| vec![0.0; rows * hidden]).collect(),
            d_stream: vec![0.0; rows * hidden],
            activations: (0..layers).map(|_| Activations::new(&sizes, samples, sequence)).collect(),
            scratch: Scratch::new(&sizes, samples, sequence),
            chunk: Chunk::new(rows, hidden, config.vocab_size, Factors::F32),
            model: Model {
                config: config.clone(),
                layout: Layout::new(config),
                sequence,
                sizes,
                rotary: RotaryTable::new(config, sequence),
                products: Products::new(config),
            },
        }
    }

    /// The same, with the factors of every product rounded so.
    #[must_use]
    pub fn with_factors(mut self, factors: Factors) -> Self {
        self.model.products.factors = factors;
        let Config { hidden_size, vocab_size, .. } = self.model.config;
        let rows = self.d_stream.len() / hidden_size;
        self.chunk = Chunk::new(rows, hidden_size, vocab_size, factors);
        self
    }

    /// The same, with buffers for what the exits learn from the full model.
    #[must_use]
    pub fn with_teacher(self) -> Self {
        Self { chunk: self.chunk.with_teacher(), ..self }
    }

    /// The same, with a norm and a head for each exit but the last ([`Layout::with_own_heads`]).
    #[must_use]
    pub fn with_own_heads(mut self) -> Self {
        self.model.layout = self.model.layout.with_own_heads();
        self
    }

    /// The same, with a norm and an adapter for each of these exits ([`Layout::with_exit_adapters`]).
    #[must_use]
    pub fn with_exit_adapters(mut self, exits: &[usize], rank: usize) -> Self {
        self.model.layout = self.model.layout.with_exit_adapters(exits, rank);
        self.chunk = self.chunk.with_adapters(rank);
        self
    }

    /// From now on, the inputs of ternary matrices have codes of so many bits. A model of floats has none.
    pub fn set_activations(&mut self, activations: bit_linear::Activations) {
        let both = [&mut self.model.config.bit_linear, &mut self.model.products.bit_linear];
        for bit_linear in both.into_iter().flatten() {
            bit_linear.activations = activations;
        }
    }

    /// The time of each op so far.
    pub fn times(&self) -> Vec<OpTime> {
        self.clock().times()
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.model.products.clock
    }

    /// Replaces the clock, and with it what was timed.
    pub(crate) fn reset_clock(&mut self, clock: Clock) {
        self.model.products.clock = clock;
    }

    /// The model's config.
    pub fn config(&self) -> &Config {
        &self.model.config
    }

    /// Where each tensor stands in a buffer of weights or gradients.
    pub fn layout(&self) -> &Layout {
        &self.model.layout
    }

    /// The forward and backward of a micro-batch. Adds the gradient of `Σ weight · CE` over the plan's exits,
    /// with the teacher's share where the plan has one (and the network was made [`Network::with_teacher`]),
    /// to `gradients`, and returns each exit's mean cross-entropy in nats, in the plan's order.
    ///
    /// # Panics
    /// If the batch does not fit, an id is beyond the vocabulary, or weights or plan are of another model.
    pub fn loss_and_gradients(
        &mut self,
        weights: StepWeights<'_>,
        batch: Batch<'_>,
        plan: &Plan,
        gradients: &mut [f32],
    ) -> Vec<f64> {
        let whole = std::iter::once(0..gradients.len());
        self.loss_and_parts(weights, batch, plan, Parts::new(gradients, whole, &mut |_| ()))
    }

    /// The same, with a gradient in parts. In which order they are done depends on the exits alone.
    ///
    /// # Panics
    /// As [`Network::loss_and_gradients`], or if a tensor lies in two parts.
    pub(crate) fn loss_and_parts(
        &mut self,
        weights: StepWeights<'_>,
        batch: Batch<'_>,
        plan: &Plan,
        mut gradients: Parts<'_, '_>,
    ) -> Vec<f64> {
        let deepest = plan.exits.last().map_or(0, |&(exit_layer, _)| exit_layer);
        let call = Call { weights, batch, plan };
        self.forward(weights, batch.inputs, plan, deepest);
        let len = batch.inputs.len() * self.model.config.hidden_size;
        values::zero(&mut self.d_stream[..len]);
        let mut losses = vec![0.0; plan.exits.len()];
        assert_eq!(plan.exits.len(), plan.scored.len(), "positions for each exit");
        let (heads, end) = (self.model.layout.norm().start, self.model.layout.len());
        gradients.finish(&(self.model.layout.layer(deepest).start..heads)); // zero: nothing runs there
        // Exits from `waiting` on are done; those from `computed` on have their losses and gradients.
        let (mut waiting, mut computed) = (plan.exits.len(), plan.exits.len());
        for depth in (0..=deepest).rev() {
            if waiting > 0 && plan.exits[waiting - 1].0 == depth {
                if waiting == computed {
                    let group = self.group(plan, waiting);
                    computed = group.first;
                    self.exits_backward(call, group, &mut gradients, &mut losses);
                }
                waiting -= 1;
                if !plan.head_only {
                    self.add_exit_gradient(plan, computed, waiting, len);
                }
                if waiting == 0 {
                    gradients.finish(&(heads..end));
                }
            }
            if depth > 0 && !plan.head_only {
                self.layer_backward(call, depth - 1, &mut gradients);
                gradients.finish(&(self.model.layout.layer(depth - 1).start..heads));
            }
        }
        assert!(waiting == 0, "exits in increasing order: {:?}", plan.exits);
        if !plan.head_only {
            let d_embed_tokens = gradients.at(&self.model.layout.embed_tokens());
            let (d_stream, hidden) = (&self.d_stream[..len], self.model.config.hidden_size);
            let work = || embedding::backward(batch.inputs, d_stream, hidden, d_embed_tokens);
            self.clock().time(Op::Embedding, Pass::Backward, 0.0, work);
        }
        gradients.finish(&(0..end));
        losses
    }

    /// The cross-entropy of a micro-batch in nats, summed over its tokens, at each of `exits`. Every layer
    /// runs.
    ///
    /// # Panics
    /// As [`Network::loss_and_gradients`].
    pub fn nats(&mut self, weights: StepWeights<'_>, batch: Batch<'_>, exits: &[usize]) -> Vec<f64> {
        self.forward_all(weights, batch.inputs, exits.iter().copied().max().unwrap_or(0));
        let len = batch.inputs.len() * self.model.config.hidden_size;
        let nats = |&exit: &usize| {
            let head = self.model.head(weights.floats, exit);
            self.chunk.nats(&self.stream[exit][..len], batch.labels, head)
        };
        exits.iter().map(nats).collect()
    }

    /// Logits of a micro-batch after `exit_layer` layers, `[tokens, vocab]`. Every layer below runs.
    ///
    /// # Panics
    /// As [`Network::loss_and_gradients`].
    pub fn logits(&mut self, weights: StepWeights<'_>, inputs: &[u32], exit_layer: usize) -> Vec<f32> {
        self.forward_all(weights, inputs, exit_layer);
        let len = inputs.len() * self.model.config.hidden_size;
        let head = self.model.head(weights.floats, exit_layer);
        self.chunk.logits(&self.stream[exit_layer][..len], head)
    }

    /// Runs the first `layers` layers for every sample.
    fn forward_all(&mut self, weights: StepWeights<'_>, inputs: &[u32], layers: usize) {
        let length = self.model.length(inputs.len());
        let all = self.model.config.num_hidden_layers;
        let plan = Plan::full(all, inputs.len() / length, length, Vec::new());
        self.forward(weights, inputs, &plan, layers);
    }

    /// Runs the first `layers` layers, and leaves the stream after each of them.
    fn forward(&mut self, weights: StepWeights<'_>, inputs: &[u32], plan: &Plan, layers: usize) {
        let Self { model, stream, activations, scratch, d_stream, .. } = self;
        let (hidden, length) = (model.config.hidden_size, model.length(inputs.len()));
        let len = inputs.len() * hidden;
        assert!(len > 0 && len <= d_stream.len(), "{} tokens do not fit", inputs.len());
        assert!(inputs.len().is_multiple_of(length), "samples of {length} tokens, not {}", inputs.len());
        assert!(weights.floats.len() == model.layout.len(), "weights of the layout's length");
        assert!(weights.are_ternary() == model.config.bit_linear.is_some(), "weights that were rounded");
        let (embed_tokens, out) = (&weights.floats[model.layout.embed_tokens()], &mut stream[0][..len]);
        let work = || embedding::forward(inputs, embed_tokens, hidden, out);
        model.products.clock.time(Op::Embedding, Pass::Forward, 0.0, work);
        for (index, activations) in activations.iter_mut().enumerate().take(layers) {
            let (before, after) = stream.split_at_mut(index + 1);
            let buffers = Buffers { activations, scratch };
            let (x, out) = (&before[index][..len], &mut after[0][..len]);
            layer::forward(model.layer(weights, index), plan.route(index, length), x, buffers, out);
        }
    }

    fn layer_backward(&mut self, call: Call<'_>, index: usize, gradients: &mut Parts<'_, '_>) {
        let Call { weights, batch, plan } = call;
        let tokens = batch.inputs.len();
        let Self { model, stream, d_stream, activations, scratch, .. } = self;
        let len = tokens * model.config.hidden_size;
        let route = plan.route(index, model.length(tokens));
        let gradients = model.layout.layer_gradients(gradients.at(&model.layout.layer(index)));
        let buffers = Buffers { activations: &mut activations[index], scratch };
        let (x, d) = (&stream[index][..len], &mut d_stream[..len]);
        layer::backward(model.layer(weights, index), gradients, route, x, buffers, d);
    }
}

/// What one forward and backward is called with.
#[derive(Clone, Copy)]
struct Call<'a> {
    weights: StepWeights<'a>,
    batch: Batch<'a>,
    plan: &'a Plan,
}

impl Model {
    /// Tokens of one sample in a micro-batch of so many.
    fn length(&self, tokens: usize) -> usize {
        self.sequence.min(tokens).max(1)
    }

    /// Layer `index`, ready to run.
    fn layer<'a>(&'a self, weights: StepWeights<'a>, index: usize) -> Context<'a> {
        Context {
            sizes: &self.sizes,
            rotary: &self.rotary,
            products: &self.products,
            weights: self.layout.layer_weights(weights.floats, index),
            attention: self.config.layer_attention(index),
            ternary: weights.ternary_layer(index),
        }
    }

    /// The head of an exit.
    fn head<'a>(&'a self, weights: &'a [f32], exit_layer: usize) -> Head<'a> {
        let [norm, lm_head] = self.layout.exit_head(exit_layer);
        let adapter = self
            .layout
            .adapter(exit_layer)
            .map(|[_, down, up]| adapter::Weights { down: &weights[down], up: &weights[up] });
        Head {
            adapter,
            norm: &weights[norm],
            eps: self.products.eps,
            lm_head: &weights[lm_head],
            factors: self.products.factors,
            clock: &self.products.clock,
        }
    }
}

#[cfg(test)]
mod tests;
