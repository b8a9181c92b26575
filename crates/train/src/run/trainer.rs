//! One step, and one validation: everything of a run but its files.

use crate::dropout::Chances;
use crate::early_exit::EarlyExitLoss;
use crate::error::Result;
use crate::network::{Batch, Network, Plan};
use crate::optimizer::Optimizer;
use crate::parameters::Layout;
use crate::profile::{Clock, Op, Profile, Way};
use crate::recipe::{Precision, Recipe, Trained, TrainingKeys};
use crate::schedule::Schedule;
use crate::start;
use offramp_kernels::gemm::Factors;
use offramp_kernels::rayon::prelude::*;
use offramp_model::Config;
use offramp_model::journal::{ExitLoss, StepRecord, ValidationRecord};
use offramp_text::{Batches, TokenStream, Tokenizer, Windows};
use std::f64::consts::LN_2;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Values that one task sets to zero, or looks at.
const CHUNK: usize = 1 << 16;

/// A model in training.
#[derive(Debug)]
pub(super) struct Trainer {
    pub(super) state: State,
    pub(super) weights: Vec<f32>,
    pub(super) optimizer: Optimizer,
    gradients: Vec<f32>,
    network: Network,
    schedule: Schedule,
    chances: Chances,
    loss: EarlyExitLoss,
    training: TrainingKeys,
    plan: Plan,
    inputs: Vec<u32>,  // [batch_size, sequence_length]
    labels: Vec<u32>,  // as `inputs`
    timed: (u64, f64), // steps, and their seconds
    warm: bool,        // the first step was made
}

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Steps made.
    pub(super) step: u64,
    /// Steps that changed the weights.
    pub(super) updates: u64,
    /// Steps that did not, as their loss or gradient was not finite.
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

    /// A model with weights from elsewhere; the optimizer's moments are zero.
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
        let (layers, shape) = (config.num_hidden_layers, (training.batch_size, training.sequence_length));
        Ok(Self {
            state,
            optimizer,
            gradients: vec![0.0; weights.len()],
            weights,
            network,
            schedule: Schedule::new(recipe),
            chances: Chances::new(recipe)?,
            loss: EarlyExitLoss::new(recipe),
            plan: Plan { head_only, ..Plan::full(layers, shape, Vec::new()) },
            inputs: vec![0; tokens],
            labels: vec![0; tokens],
            timed: (0, 0.0),
            warm: false,
            training,
        })
    }

    /// Where the time of the steps went: the first is left out if there were others, as it touches memory for
    /// the first time.
    pub(super) fn profile(&self) -> Profile {
        let (steps, seconds) = self.timed;
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

    /// Whether everything that a checkpoint keeps is a number that can be read again.
    pub(super) fn is_finite(&self) -> bool {
        let finite =
            |values: &[f32]| values.par_chunks(CHUNK).all(|chunk| chunk.iter().all(|v| v.is_finite()));
        finite(&self.weights) && finite(&self.optimizer.m) && finite(&self.optimizer.v)
    }

    /// Makes the next step. None, and nothing has changed, if `stop` turns true before its last micro-batch
    /// begins.
    pub(super) fn step(
        &mut self,
        batches: &mut Batches<'_>,
        stop: &AtomicBool,
    ) -> Result<Option<StepRecord>> {
        if self.timed.0 == 1 && !self.warm {
            self.warm = true;
            self.timed = (0, 0.0);
            self.network.reset_clock(Clock::new());
        }
        let (began, clock) = (Instant::now(), self.network.clock().clone());
        let Some(mut record) = self.untimed(batches, stop)? else {
            self.network.reset_clock(clock);
            return Ok(None);
        };
        let seconds = began.elapsed().as_secs_f64();
        self.timed = (self.timed.0 + 1, self.timed.1 + seconds);
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
        let norm = network.clock().time(Op::AdamW, Way::Forward, 0.0, || optimizer.norm(gradients));
        let learning_rate = self.schedule.learning_rate(step);
        self.optimizer.set_weight_decay(self.schedule.weight_decay(step));
        self.state.step += 1;
        if loss.is_finite() && norm.is_finite() {
            self.state.updates += 1;
            self.state.skipped_in_a_row = 0;
            let time = (self.state.updates, learning_rate);
            let Self { optimizer, weights, gradients, network, .. } = &mut *self;
            network.clock().time(Op::AdamW, Way::Forward, 0.0, || {
                optimizer.step(network.layout(), weights, gradients, norm, time);
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

    /// Leaves the gradient of the mean over the step's micro-batches, and returns each exit's mean loss. None
    /// if `stop` turns true: a large step takes longer than whoever stops a run may wait.
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
        let clear = || gradients.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
        self.network.clock().time(Op::AdamW, Way::Forward, 0.0, clear);
        let mut losses = vec![0.0; exits.len()];
        for micro_batch in 0..accumulation as u64 {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let index = step * accumulation as u64 + micro_batch;
            let (inputs, labels) = (&mut self.inputs, &mut self.labels);
            let fill = || batches.fill(index, inputs, labels);
            self.network.clock().time(Op::Batch, Way::Forward, 0.0, fill)?;
            for (layer, (kept, scale)) in self.plan.kept.iter_mut().zip(&mut self.plan.scale).enumerate() {
                self.chances.keep((step, index), layer, self.training.batch_size, kept);
                *scale = self.chances.scale(step, layer) as f32;
            }
            for ((exit_layer, _), scored) in self.plan.exits.iter().zip(&mut self.plan.scored) {
                self.loss.positions(index, *exit_layer, self.inputs.len(), scored);
            }
            let batch = Batch { inputs: &self.inputs, labels: &self.labels };
            let found =
                self.network.loss_and_gradients(&self.weights, batch, &self.plan, &mut self.gradients);
            losses.iter_mut().zip(found).for_each(|(loss, found)| *loss += share * found);
        }
        Ok(Some(losses))
    }

    /// Measures the validation split at `exits`, the full model last, in windows of the training's sequence
    /// length, as `eval` does; `max_tokens` of it at most, 0 for all. None if `stop` turns true before it is
    /// done.
    pub(super) fn validate(
        &mut self,
        (exits, max_tokens): (&[usize], u64),
        stream: &TokenStream,
        tokenizer: &Tokenizer,
        stop: &AtomicBool,
    ) -> Result<Option<ValidationRecord>> {
        let length = self.training.sequence_length;
        let windows = Windows::new(stream, length)?;
        let wanted = match max_tokens {
            0 => windows.len(),
            tokens => windows.len().min(tokens.div_ceil(length as u64)),
        };
        let clock = self.network.clock().clone(); // what validation takes is no step's
        let mut score = Score { nats: vec![0.0; exits.len()], tokens: 0, bytes: 0 };
        self.inputs.clear();
        self.labels.clear();
        let mut stopped = false;
        for index in 0..wanted {
            stopped = stop.load(Ordering::Relaxed);
            if stopped {
                break;
            }
            let window = windows.get(index)?;
            if window.labels().len() < length {
                self.score(exits, tokenizer, &mut score); // the shorter window goes alone
            }
            self.inputs.extend_from_slice(window.inputs());
            self.labels.extend_from_slice(window.labels());
            if self.inputs.len() == self.training.batch_size * length || index + 1 == wanted {
                self.score(exits, tokenizer, &mut score);
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

    /// Adds the windows gathered in `inputs` and `labels` to the score, and clears them.
    fn score(&mut self, exits: &[usize], tokenizer: &Tokenizer, score: &mut Score) {
        if self.inputs.is_empty() {
            return;
        }
        let batch = Batch { inputs: &self.inputs, labels: &self.labels };
        let found = self.network.nats(&self.weights, batch, exits);
        score.nats.iter_mut().zip(found).for_each(|(nats, found)| *nats += found);
        score.tokens += self.labels.len() as u64;
        let pairs = self.inputs.iter().zip(&self.labels);
        let bytes = |(&input, &label)| tokenizer.token_bytes_after(input, label).unwrap_or(0) as u64;
        score.bytes += pairs.map(bytes).sum::<u64>();
        self.inputs.clear();
        self.labels.clear();
    }
}

/// What a validation adds up.
struct Score {
    nats: Vec<f64>, // one for each exit
    tokens: u64,
    bytes: u64,
}
