//! One step of a run, together with the other ranks.

use super::together::any;
use crate::averages::{Average, averages};
use crate::dropout::{LayerDropout, MicroBatch};
use crate::early_exit::EarlyExitLoss;
use crate::error::Result;
use crate::network::{Batch, Network, Plan};
use crate::ops::values;
use crate::optimizer::{Bucket, Optimizer, Own, Update, buckets};
use crate::parameters::Layout;
use crate::profile::{Clock, Op, Pass, Profile};
use crate::recipe::{Adapters, Precision, Recipe, Trained, TrainingKeys};
use crate::schedule::Schedule;
use crate::step_weights::Rounding;
use offramp_kernels::gemm::Factors;
use offramp_model::Config;
use offramp_model::journal::{ExitLoss, StepRecord};
use offramp_ranks::{Fold, Ranks, tree};
use offramp_text::Batches;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// A model in training.
#[derive(Debug)]
pub(super) struct Trainer {
    pub(super) state: State,
    pub(super) weights: Vec<f32>,
    pub(super) optimizer: Optimizer,
    pub(super) gradients: Vec<f32>,
    pub(super) network: Network,
    pub(super) rounding: Rounding,
    pub(super) averages: Vec<Average>, // the first rank's
    /// The model that stays as it is, where only adapters learn.
    pub(super) over: Option<PathBuf>,
    schedule: Schedule,
    dropout: LayerDropout,
    loss: EarlyExitLoss,
    pub(super) training: TrainingKeys,
    pub(super) plan: Plan,
    pub(super) inputs: Vec<u32>,     // [batch_size, sequence_length]
    pub(super) labels: Vec<u32>,     // as `inputs`
    pub(super) fold: Fold,           // of the gradients of micro-batches
    pub(super) buckets: Vec<Bucket>, // of the weights
    timed: Timed,
    warm: bool, // the first step was made
}

/// Steps that were timed, and their seconds.
#[derive(Clone, Copy, Debug, Default)]
struct Timed {
    steps: u64,
    seconds: f64,
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
    /// A model with given weights; the optimizer's moments are zero.
    pub(super) fn new(recipe: &Recipe, config: Config, weights: Vec<f32>, ranks: &Ranks) -> Result<Self> {
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
        if let Some(Adapters { exits, rank }) = recipe.adapters() {
            network = network.with_exit_adapters(&exits, rank);
        }
        let distillation = recipe.early_exit.distillation();
        if distillation.is_some() {
            network = network.with_teacher();
        }
        let (size, values) = (ranks.size(), ranks.bucket() / size_of::<f32>());
        let buckets = buckets(network.layout(), &recipe.optimizer, size, values);
        let own = Own::of(&buckets, ranks.rank());
        let mut optimizer = Optimizer::of_share(&recipe.optimizer, network.layout(), own);
        let head_only = recipe.start.train != Trained::All;
        match recipe.start.train {
            Trained::All => (),
            Trained::ExitHead => optimizer.freeze_before(network.layout().norm().start),
            Trained::ExitAdapters => optimizer.freeze_before(network.layout().model_len()),
        }
        let over = recipe.start.checkpoint.clone().filter(|_| recipe.adapters().is_some());
        let averaged = network.layout().model_len();
        let averages = if ranks.is_first() { averages(recipe, averaged) } else { Vec::new() };
        let layers = config.num_hidden_layers;
        let plan = Plan::full(layers, training.batch_size, training.sequence_length, Vec::new());
        Ok(Self {
            state: State::default(),
            optimizer,
            fold: Fold::default(),
            buckets,
            gradients: vec![0.0; weights.len()],
            weights,
            rounding: Rounding::new(&config, network.layout()),
            averages,
            over,
            network,
            schedule: Schedule::new(recipe),
            dropout: LayerDropout::new(recipe)?,
            loss: EarlyExitLoss::new(recipe),
            plan: Plan { head_only, distillation, ..plan },
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

    /// Makes the next step, together with the other ranks. If `stop` becomes true on one of them before its
    /// last micro-batch begins, all return none, and nothing has changed.
    pub(super) fn step(
        &mut self,
        batches: &mut Batches<'_>,
        ranks: &mut Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<StepRecord>> {
        if self.timed.steps == 1 && !self.warm {
            self.warm = true;
            self.timed = Timed::default();
            self.network.reset_clock(Clock::new());
        }
        let (began, clock) = (Instant::now(), self.network.clock().clone());
        let Some(mut record) = self.untimed(batches, ranks, stop)? else {
            self.network.reset_clock(clock);
            return Ok(None);
        };
        let seconds = began.elapsed().as_secs_f64();
        self.timed = Timed { steps: self.timed.steps + 1, seconds: self.timed.seconds + seconds };
        record.tokens_per_second = self.tokens_per_step() as f64 / seconds;
        Ok(Some(record))
    }

    fn untimed(
        &mut self,
        batches: &mut Batches<'_>,
        ranks: &mut Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<StepRecord>> {
        let step = self.state.step;
        let exits = self.loss.exits(step);
        if let Some(activations) = self.schedule.activations(step) {
            self.network.set_activations(activations);
        }
        let Some(losses) = self.accumulate(batches, &exits, ranks, stop)? else { return Ok(None) };
        let loss: f64 = losses.iter().zip(&exits).map(|(loss, (_, weight))| loss * weight).sum();
        let Self { optimizer, gradients, network, .. } = &mut *self;
        let norm =
            network.clock().time(Op::AdamW, Pass::Forward, 0.0, || optimizer.norm_over(gradients, ranks));
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
            let Self { buckets, weights, network, .. } = self;
            network.clock().time(Op::Ranks, Pass::Forward, 0.0, || {
                buckets.iter().for_each(|bucket| ranks.all_gather(weights, &bucket.shares));
            });
        } else {
            self.state.skipped += 1;
            self.state.skipped_in_a_row += 1;
        }
        let Self { averages, weights, network, state, .. } = &mut *self;
        network.clock().time(Op::AdamW, Pass::Forward, 0.0, || {
            averages.iter_mut().for_each(|average| average.take(state.step, weights));
        });
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

    /// Leaves in this rank's share the gradient of the mean over the step's micro-batches, and returns each
    /// exit's mean loss. Returns none if `stop` becomes true on any rank: a large step takes longer than a
    /// stop may wait.
    ///
    /// A step's micro-batches are the recipe's, whoever computes them: each rank has a run of neighbours.
    fn accumulate(
        &mut self,
        batches: &mut Batches<'_>,
        exits: &[(usize, f64)],
        ranks: &mut Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<Vec<f64>>> {
        let (step, accumulation) = (self.state.step, self.training.accumulation);
        let share = 1.0 / accumulation as f64;
        self.plan.exits.clear();
        self.plan.exits.extend(exits.iter().map(|&(exit, weight)| (exit, (weight * share) as f32)));
        self.plan.scored.resize_with(exits.len(), Vec::new);
        let (rounding, weights) = (&mut self.rounding, &self.weights);
        self.network.clock().time(Op::Quantize, Pass::Forward, 0.0, || rounding.round(weights));
        let mine = accumulation / ranks.size();
        let first = step * accumulation as u64 + (ranks.rank() * mine) as u64;
        let last = first + mine as u64 - 1;
        let mut losses = Vec::with_capacity(exits.len() * mine); // [micro-batches, exits]
        for index in first..last {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            losses.extend(self.micro_batch(index, batches, index == first)?);
            if self.folds(mine) {
                let Self { fold, gradients, network, .. } = &mut *self;
                network.clock().time(Op::Ranks, Pass::Forward, 0.0, || fold.push(gradients, values::add));
            }
        }
        if any(ranks, stop.load(Ordering::Relaxed)) {
            self.fold.clear();
            return Ok(None);
        }
        losses.extend(self.last_micro_batch(last, batches, last == first, ranks)?);
        losses.iter_mut().for_each(|loss| *loss *= share);
        tree(&mut losses, exits.len());
        losses.truncate(exits.len());
        ranks.sum(&mut losses);
        Ok(Some(losses))
    }

    /// Whether the gradients of micro-batches are folded by a tree, and not added where they are made.
    fn folds(&self, mine: usize) -> bool {
        self.training.exact_ranks && mine > 1
    }

    /// Adds the gradient of a micro-batch, or leaves it alone in the buffer if gradients are folded, and
    /// returns the loss of each exit.
    fn micro_batch(&mut self, index: u64, batches: &mut Batches<'_>, is_first: bool) -> Result<Vec<f64>> {
        self.begin(index, batches, is_first)?;
        let batch = Batch { inputs: &self.inputs, labels: &self.labels };
        let weights = self.rounding.rounded(&self.weights);
        Ok(self.network.loss_and_gradients(weights, batch, &self.plan, &mut self.gradients))
    }

    /// Fills the batch and the plan of a micro-batch, and makes room for its gradient.
    pub(super) fn begin(&mut self, index: u64, batches: &mut Batches<'_>, is_first: bool) -> Result<()> {
        let step = self.state.step;
        if is_first || self.training.exact_ranks {
            let gradients = &mut self.gradients;
            self.network.clock().time(Op::AdamW, Pass::Forward, 0.0, || values::zero(gradients));
        }
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
        Ok(())
    }
}
