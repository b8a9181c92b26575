//! One step, and one validation: everything of a run but its files.

use crate::dropout::{LayerDropout, MicroBatch};
use crate::early_exit::EarlyExitLoss;
use crate::error::Result;
use crate::network::{Batch, Network, Plan};
use crate::ops::values;
use crate::optimizer::{Optimizer, Update};
use crate::parameters::Layout;
use crate::profile::{Clock, Op, Pass, Profile};
use crate::recipe::{Precision, Recipe, Trained, TrainingKeys};
use crate::schedule::Schedule;
use crate::start;
use crate::step_weights::{Rounding, StepWeights};
use offramp_kernels::gemm::Factors;
use offramp_model::Config;
use offramp_model::journal::{ExitLoss, StepRecord, ValidationRecord};
use offramp_text::{Batches, TokenStream, Tokenizer, Windows};
use std::f64::consts::LN_2;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A model in training.
#[derive(Debug)]
pub(super) struct Trainer {
    pub(super) state: State,
    pub(super) weights: Vec<f32>,
    pub(super) optimizer: Optimizer,
    gradients: Vec<f32>,
    network: Network,
    rounding: Rounding,
    schedule: Schedule,
    dropout: LayerDropout,
    loss: EarlyExitLoss,
    training: TrainingKeys,
    plan: Plan,
    inputs: Vec<u32>, // [batch_size, sequence_length]
    labels: Vec<u32>, // as `inputs`
    timed: Timed,
    warm: bool, // the first step was made
}

/// Steps that were timed, and their seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Timed {
    steps: u64,
    seconds: f64,
}

/// How a validation measures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Validation<'a> {
    /// Exit layers, the full model last.
    pub(super) exits: &'a [usize],
    /// Tokens to measure at most; 0 is the whole split.
    pub(super) max_tokens: u64,
    pub(super) stream: &'a TokenStream,
    pub(super) tokenizer: &'a Tokenizer,
}

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Steps made.
    pub(super) step: u64,
    /// Steps that changed the weights.
    pub(super) updates: u64,
    /// Steps that did not, because their loss or gradient was not finite.
    pub(super) skipped: u64,
    /// How many of the latest steps did not.
    pub(super) skipped_in_a_row: u32,
}

impl Trainer {
    /// A model with its first weights.
    pub(super) fn new(recipe: &Recipe, config: Config) -> Result<Self> {
        let weights = start::weights(recipe, &config, &start::layout(recipe, &config))?;
        Self::with(recipe, config, weights, State::default())
    }

    /// A model with given weights; the optimizer's moments are zero.
    pub(super) fn with(recipe: &Recipe, config: Config, weights: Vec<f32>, state: State) -> Result<Self> {
        let training = recipe.training.clone();
        let tokens = training.batch_size * training.sequence_length;
        let factors = match training.precision {
            Precision::F32 => Factors::F32,
            Precision::Bf16 => Factors::Bf16,
        };
        let mut network =
            Network::new(&config, training.batch_size, training.sequence_length).with_factors(factors);
        if recipe.early_exit.own_heads {
            network = network.with_own_heads();
        }
        let mut optimizer = Optimizer::new(&recipe.optimizer, network.layout());
        let head_only = recipe.start.train == Trained::ExitHead;
        if head_only {
            optimizer.freeze_before(network.layout().norm().start);
        }
        let layers = config.num_hidden_layers;
        let plan = Plan::full(layers, training.batch_size, training.sequence_length, Vec::new());
        Ok(Self {
            state,
            optimizer,
            gradients: vec![0.0; weights.len()],
            weights,
            rounding: Rounding::new(&config, network.layout()),
            network,
            schedule: Schedule::new(recipe),
            dropout: LayerDropout::new(recipe)?,
            loss: EarlyExitLoss::new(recipe),
            plan: Plan { head_only, ..plan },
            inputs: vec![0; tokens],
            labels: vec![0; tokens],
            timed: Timed::default(),
            warm: false,
            training,
        })
    }

    /// Where the time of the steps went. The first step touches memory for the first time; it is left out if
    /// there were others.
    pub(super) fn profile(&self) -> Profile {
        let Timed { steps, seconds } = self.timed;
        Profile { steps, seconds, ops: self.network.times() }
    }

    pub(super) fn config(&self) -> &Config {
        self.network.config()
    }

    pub(super) fn layout(&self) -> &Layout {
        self.network.layout()
    }

    pub(super) fn tokens_per_step(&self) -> u64 {
        (self.inputs.len() * self.training.accumulation) as u64
    }

    /// Whether weights and moments are finite, so that a checkpoint of them can be read.
    pub(super) fn is_finite(&self) -> bool {
        [&self.weights, &self.optimizer.m, &self.optimizer.v].into_iter().all(|all| values::are_finite(all))
    }

    /// Makes the next step. If `stop` becomes true before its last micro-batch begins, it returns none and
    /// nothing has changed.
    pub(super) fn step(
        &mut self,
        batches: &mut Batches<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<StepRecord>> {
        if self.timed.steps == 1 && !self.warm {
            self.warm = true;
            self.timed = Timed::default();
            self.network.reset_clock(Clock::new());
        }
        let (began, clock) = (Instant::now(), self.network.clock().clone());
        let Some(mut record) = self.untimed(batches, stop)? else {
            self.network.reset_clock(clock);
            return Ok(None);
        };
        let seconds = began.elapsed().as_secs_f64();
        self.timed = Timed { steps: self.timed.steps + 1, seconds: self.timed.seconds + seconds };
        record.tokens_per_second = self.tokens_per_step() as f64 / seconds;
        Ok(Some(record))
    }

    fn untimed(&mut self, batches: &mut Batches<'_>, stop: &AtomicBool) -> Result<Option<StepRecord>> {
        let step = self.state.step;
        let exits = self.loss.exits(step);
        if let Some(activations) = self.schedule.activations(step) {
            self.network.set_activations(activations);
        }
        let Some(losses) = self.accumulate(batches, &exits, stop)? else { return Ok(None) };
        let loss: f64 = losses.iter().zip(&exits).map(|(loss, (_, weight))| loss * weight).sum();
        let Self { optimizer, gradients, network, .. } = &mut *self;
        let norm = network.clock().time(Op::AdamW, Pass::Forward, 0.0, || optimizer.norm(gradients));
        let learning_rate = self.schedule.learning_rate(step);
        self.optimizer.set_weight_decay(self.schedule.weight_decay(step));
        self.state.step += 1;
        if loss.is_finite() && norm.is_finite() {
            self.state.updates += 1;
            self.state.skipped_in_a_row = 0;
            let update = Update { number: self.state.updates, learning_rate, norm };
            let Self { optimizer, weights, gradients, network, .. } = &mut *self;
            network.clock().time(Op::AdamW, Pass::Forward, 0.0, || {
                optimizer.step(network.layout(), weights, gradients, update);
            });
        } else {
            self.state.skipped += 1;
            self.state.skipped_in_a_row += 1;
        }
        let each = exits.iter().zip(&losses);
        let mut exit_losses: Vec<_> =
            each.map(|(&(exit_layer, _), &loss)| ExitLoss { exit_layer, loss }).collect();
        let last = exit_losses.pop().map_or(f64::NAN, |last| last.loss); // the full model's is always there
        Ok(Some(StepRecord {
            step: self.state.step,
            tokens: self.state.step * self.tokens_per_step(),
            loss,
            final_loss: last,
            exit_losses,
            grad_norm: norm,
            learning_rate,
            activation_bits: self.config().bit_linear.map(|bit_linear| bit_linear.activations.bits()),
            tokens_per_second: 0.0,
        }))
    }

    /// Leaves the gradient of the mean over the step's micro-batches, and returns each exit's mean loss.
    /// Returns none if `stop` becomes true: a large step takes longer than a stop may wait.
    fn accumulate(
        &mut self,
        batches: &mut Batches<'_>,
        exits: &[(usize, f64)],
        stop: &AtomicBool,
    ) -> Result<Option<Vec<f64>>> {
        let (step, accumulation) = (self.state.step, self.training.accumulation);
        let share = 1.0 / accumulation as f64;
        self.plan.exits.clear();
        self.plan.exits.extend(exits.iter().map(|&(exit, weight)| (exit, (weight * share) as f32)));
        self.plan.scored.resize_with(exits.len(), Vec::new);
        let gradients = &mut self.gradients;
        self.network.clock().time(Op::AdamW, Pass::Forward, 0.0, || values::zero(gradients));
        let (rounding, weights) = (&mut self.rounding, &self.weights);
        let clock = self.network.clock();
        let weights = clock.time(Op::Quantize, Pass::Forward, 0.0, || rounding.round(weights));
        let mut losses = vec![0.0; exits.len()];
        for micro_batch in 0..accumulation as u64 {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let index = step * accumulation as u64 + micro_batch;
            let (inputs, labels) = (&mut self.inputs, &mut self.labels);
            let fill = || batches.fill(index, inputs, labels);
            self.network.clock().time(Op::Batch, Pass::Forward, 0.0, fill)?;
            for (layer, (kept, scale)) in self.plan.kept.iter_mut().zip(&mut self.plan.scale).enumerate() {
                let samples = self.training.batch_size;
                self.dropout.keep(MicroBatch { step, index }, layer, samples, kept);
                *scale = self.dropout.scale(step, layer) as f32;
            }
            for ((exit_layer, _), scored) in self.plan.exits.iter().zip(&mut self.plan.scored) {
                self.loss.positions(index, *exit_layer, self.inputs.len(), scored);
            }
            let batch = Batch { inputs: &self.inputs, labels: &self.labels };
            let found = self.network.loss_and_gradients(weights, batch, &self.plan, &mut self.gradients);
            losses.iter_mut().zip(found).for_each(|(loss, found)| *loss += share * found);
        }
        Ok(Some(losses))
    }

    /// Measures the validation split in windows of the training's sequence length, as `eval` does. Returns
    /// none if `stop` becomes true before it is done.
    pub(super) fn validate(
        &mut self,
        validation: Validation<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<ValidationRecord>> {
        let Validation { exits, max_tokens, stream, .. } = validation;
        let length = self.training.sequence_length;
        let windows = Windows::new(stream, length)?;
        let wanted = match max_tokens {
            0 => windows.len(),
            tokens => windows.len().min(tokens.div_ceil(length as u64)),
        };
        let clock = self.network.clock().clone(); // the time of a validation belongs to no step
        let mut score = Score::new(validation);
        let Self { network, rounding, weights, inputs, labels, training, .. } = &mut *self;
        let weights = rounding.round(weights);
        inputs.clear();
        labels.clear();
        let mut stopped = false;
        for index in 0..wanted {
            stopped = stop.load(Ordering::Relaxed);
            if stopped {
                break;
            }
            let window = windows.get(index)?;
            if window.labels().len() < length {
                score.add(network, weights, inputs, labels); // the shorter window goes alone
            }
            inputs.extend_from_slice(window.inputs());
            labels.extend_from_slice(window.labels());
            if inputs.len() == training.batch_size * length || index + 1 == wanted {
                score.add(network, weights, inputs, labels);
            }
        }
        self.network.reset_clock(clock);
        let tokens = self.training.batch_size * length;
        self.inputs.resize(tokens, 0);
        self.labels.resize(tokens, 0);
        if stopped {
            return Ok(None);
        }
        let full = score.nats.last().copied().unwrap_or(f64::NAN);
        let mean =
            |(&exit_layer, nats): (&usize, &f64)| ExitLoss { exit_layer, loss: nats / score.tokens as f64 };
        Ok(Some(ValidationRecord {
            step: self.state.step,
            exits: exits.iter().zip(&score.nats).map(mean).collect(),
            bits_per_byte: full / LN_2 / score.bytes as f64,
        }))
    }
}

/// What a validation adds up.
struct Score<'a> {
    validation: Validation<'a>,
    nats: Vec<f64>, // one for each exit
    tokens: u64,
    bytes: u64,
}

impl<'a> Score<'a> {
    fn new(validation: Validation<'a>) -> Self {
        Self { validation, nats: vec![0.0; validation.exits.len()], tokens: 0, bytes: 0 }
    }

    /// Measures the gathered windows, if there are any, and clears them.
    fn add(
        &mut self,
        network: &mut Network,
        weights: StepWeights<'_>,
        inputs: &mut Vec<u32>,
        labels: &mut Vec<u32>,
    ) {
        if inputs.is_empty() {
            return;
        }
        let found = network.nats(weights, Batch { inputs, labels }, self.validation.exits);
        self.nats.iter_mut().zip(found).for_each(|(nats, found)| *nats += found);
        self.tokens += labels.len() as u64;
        let pairs = inputs.iter().zip(&*labels);
        let tokenizer = self.validation.tokenizer;
        let bytes = |(&input, &label)| tokenizer.token_bytes_after(input, label).unwrap_or(0) as u64;
        self.bytes += pairs.map(bytes).sum::<u64>();
        inputs.clear();
        labels.clear();
    }
}
