//! The memory that a run needs, counted before any of it is allocated.
//!
//! The sums are those of the buffers that [`Trainer`](crate::run) and [`network`](crate::network) allocate
//! once. A run holds them from its first step to its last. `crates/cli/tests/command/memory.rs` compares them
//! with a real process.

use crate::averages;
use crate::error::{Error, Result};
use crate::exit_head;
use crate::layer::{self, Sizes};
use crate::recipe::{Adapters, Curriculum, Matrices, Precision, Recipe};
use offramp_model::{Config, memory};
use offramp_ranks::Fold;

/// A process before it trains: the program, its threads and their buffers, the tokenizer.
const PROCESS: u64 = 32 << 20;
/// Weights and gradients.
const COPIES: u128 = 2;
/// Both moments, of which each rank has a share.
const MOMENTS: u128 = 2;
/// Bytes of an `f32`.
const FLOAT: u128 = size_of::<f32>() as u128;

/// Bytes of memory that a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// For the model, whatever the batch: weights, gradients, moments, and the optimizer's scratch.
    pub model: u64,
    /// For a micro-batch: what the forward keeps for the backward, and the scratch that all layers share.
    pub micro_batch: u64,
}

impl Need {
    /// The need of a recipe that makes a model of `config`, in one process.
    pub fn of(recipe: &Recipe, config: &Config) -> Self {
        Self::of_rank(recipe, config, 1)
    }

    /// The need of each of `ranks` processes: each has the moments of its share, and folds the gradients of
    /// its own micro-batches.
    pub fn of_rank(recipe: &Recipe, config: &Config, ranks: usize) -> Self {
        let bytes = |bytes: u128| u64::try_from(bytes).unwrap_or(u64::MAX);
        Self { model: bytes(model(recipe, config, ranks)), micro_batch: bytes(micro_batch(recipe, config)) }
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.model.saturating_add(self.micro_batch).saturating_add(PROCESS)
    }
}

/// Checks that the run of a recipe in so many processes fits the memory, and allocates nothing. A vocabulary
/// that is not known yet may be counted as a small one.
///
/// # Errors
/// [`Error::NoMemory`] if it needs more than this process may still take, or the sizes are impossible.
pub fn check(recipe: &Recipe, config: &Config, ranks: usize) -> Result<()> {
    fits(recipe, Need::of_rank(recipe, config, ranks), memory::available())
}

fn fits(recipe: &Recipe, need: Need, available: Option<u64>) -> Result<()> {
    // Where the available memory is unknown, this is what a process can address.
    let available = available.unwrap_or(isize::MAX as u64);
    if need.bytes() <= available {
        return Ok(());
    }
    let advice = match need.micro_batch > need.model {
        true => "lower training.batch_size (accumulation makes up for it) or training.sequence_length",
        false => "choose smaller sizes in [model], or a machine with more memory",
    };
    let path = recipe.path().to_owned();
    Err(Error::NoMemory { path, needed: need.bytes(), available, advice })
}

/// In 128 bits: sizes within a config's limits cannot overflow.
fn model(recipe: &Recipe, config: &Config, ranks: usize) -> u128 {
    let own_heads = match recipe.early_exit.own_heads {
        true => {
            (config.num_hidden_layers as u128 - 1)
                * (config.vocab_size as u128 + 1)
                * config.hidden_size as u128
        }
        false => 0,
    };
    let adapters = recipe.adapters().map_or(0, |Adapters { exits, rank }| {
        exits.len() as u128 * (2 * rank as u128 + 1) * config.hidden_size as u128
    });
    let values = u128::from(config.parameter_count()) + own_heads + adapters;
    let ternary = if config.bit_linear.is_some() { u128::from(config.parameter_count()) } else { 0 };
    let folded = if recipe.training.exact_ranks {
        Fold::buffers(recipe.training.accumulation / ranks) as u128
    } else {
        0
    };
    let muon = if recipe.optimizer.matrices == Matrices::Muon { largest_matrix(config) } else { 0 };
    // The first rank has the averages, of the model's own values.
    let averages = averages::count(&recipe.averages) as u128 * u128::from(config.parameter_count());
    FLOAT
        * ((COPIES + folded) * values + MOMENTS * values.div_ceil(ranks as u128) + ternary + muon + averages)
}

/// Muon's scratch for one matrix at a time: two of its size, and two squares of its shorter side.
fn largest_matrix(config: &Config) -> u128 {
    let matrices = config.tensors().into_iter().filter(|spec| spec.name.starts_with("model.layers."));
    let room = matrices.map(|spec| match *spec.shape {
        [rows, cols] => 2 * (rows as u128 * cols as u128 + (rows.min(cols) as u128).pow(2)),
        _ => 0,
    });
    room.max().unwrap_or(0)
}

fn micro_batch(recipe: &Recipe, config: &Config) -> u128 {
    let training = &recipe.training;
    let (samples, length) = (training.batch_size as u128, training.sequence_length as u128);
    let (rows, hidden) = (samples * length, config.hidden_size as u128);
    let (layers, sizes) = (config.num_hidden_layers as u128, Sizes::new(config));
    let stream = (layers + 2) * rows * hidden; // and its gradient
    let floats =
        stream + layers * layer::kept_floats(&sizes) * rows + layer::shared_floats(&sizes, samples, length);
    let exits = if recipe.early_exit.curriculum == Curriculum::None { 1 } else { layers };
    let positions = exits * rows * size_of::<usize>() as u128; // of each exit that is scored
    let tokens = 2 * rows * size_of::<u32>() as u128; // inputs and labels
    let teacher = recipe.early_exit.teacher.is_some();
    let bf16 = training.precision == Precision::Bf16;
    FLOAT * floats
        + exit_head::chunk_bytes(rows, hidden, config.vocab_size as u128, bf16, teacher)
        + positions
        + tokens
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn recipe(keys: &str) -> Recipe {
        Recipe::from_toml(&format!("[data]\ncorpus = \"c\"\n{keys}"), Path::new("r.toml")).unwrap()
    }

    fn need(keys: &str) -> Need {
        let recipe = recipe(keys);
        Need::of(&recipe, &recipe.config(50_257, None).unwrap())
    }

    /// Computed apart: four copies of the card's 1,061,591,040 parameters, and two gradients that wait for
    /// their neighbours.
    #[test]
    fn the_card_needs_four_copies_of_its_weights() {
        assert_eq!(need("[training]\nexact_ranks = false").model, 16_985_456_640);
        assert_eq!(need("").model, 16_985_456_640 + 2 * 4_246_364_160);
        let averages = "[averages]\nema_decay = 0.999\nswa_start = 1";
        assert_eq!(need(averages).model, need("").model + 2 * 4_246_364_160);
        let recipe = recipe("");
        let config = recipe.config(50_257, None).unwrap();
        assert_eq!(Need::of_rank(&recipe, &config, 4).model, 2 * 4_246_364_160 + 2 * 1_061_591_040);
        // Each further sample needs as much, but for the chunk of logits that all share.
        let [one, two, three] =
            [1, 2, 3].map(|samples| need(&format!("[training]\nbatch_size = {samples}")).micro_batch);
        let [first, second] = [two - one, three - two];
        assert!(second <= first && first > 400_000_000, "{one}, {two}, {three}");
    }

    #[test]
    fn what_does_not_fit_is_one_line_with_both_numbers_and_what_to_lower() {
        let said = |keys: &str, available: Option<u64>| {
            let recipe = recipe(keys);
            fits(&recipe, need(keys), available).map_err(|error| error.to_string())
        };
        let batch = "[training]\nbatch_size = 100000";
        for (keys, available, parts) in [
            (batch, Some(16_300_000_000), ["r.toml", "16.3 GB are available", "lower training.batch_size"]),
            (batch, None, ["r.toml", "GB are available", ""]),
            ("", Some(1 << 30), ["of memory", "1.0 GB are available", "smaller sizes in [model]"]),
        ] {
            if available.is_none() && said(keys, None).is_ok() {
                continue; // nobody knows, and it can be addressed
            }
            let message = said(keys, available).unwrap_err();
            let _ = parts.map(|part| {
                assert!(message.contains(part) && !message.contains('\n'), "{message}, not {part}")
            });
        }
        assert!(said("", Some(1 << 40)).is_ok());
    }

    /// The largest sizes that any check lets through: a number, and no overflow.
    #[test]
    fn no_sizes_overflow() {
        let keys = format!(
            "[model]\nhidden_size = {0}\nintermediate_size = {0}\nnum_hidden_layers = 5000\nnum_attention_heads = {0}\n\
             num_key_value_heads = {0}\nhead_dim = 2\nmax_position_embeddings = {1}\n[layer_dropout]\nshape = \"none\"\n\
             [training]\nbatch_size = {1}\nsequence_length = {2}\n[optimizer]\nmatrices = \"muon\"",
            1 << 13,
            1 << 24,
            1 << 8
        );
        let recipe = recipe(&keys);
        let config = recipe.config(257, None).unwrap();
        assert!(Need::of(&recipe, &config).bytes() > 1 << 55, "and that is what it says");
        assert!(check(&recipe, &config, 1).is_err());
    }
}
