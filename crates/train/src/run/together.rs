//! What the ranks of a run agree on, and what they give each other outside a step.

use super::data::Data;
use super::trainer::{State, Trainer};
use crate::error::{Error, Result};
use crate::optimizer::Bucket;
use crate::recipe::Recipe;
use crate::start;
use offramp_kernels::active;
use offramp_model::Config;
use offramp_ranks::Ranks;
use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

/// Whether this is so on any rank.
pub(super) fn any(ranks: &mut Ranks, here: bool) -> bool {
    let mut flag = [f64::from(u8::from(here))];
    ranks.sum(&mut flag);
    flag[0] > 0.0
}

/// What the first rank says.
pub(crate) fn of_first(ranks: &mut Ranks, here: bool) -> bool {
    let here = here && ranks.is_first();
    any(ranks, here)
}

/// Where the first rank stands.
pub(super) fn state_of_first(ranks: &mut Ranks, state: State) -> State {
    let State { step, updates, skipped, skipped_in_a_row } = state;
    // Numbers of steps are whole in `f64`: a recipe has fewer than 2^53.
    let numbers = [step as f64, updates as f64, skipped as f64, f64::from(skipped_in_a_row)];
    let all = ranks.gather(&numbers);
    let of = |at: usize| all[at] as u64;
    State { step: of(0), updates: of(1), skipped: of(2), skipped_in_a_row: of(3) as u32 }
}

/// A trainer with first weights, which the first rank makes or reads.
pub(super) fn first_weights(recipe: &Recipe, config: Config, ranks: &mut Ranks) -> Result<Trainer> {
    let layout = start::layout(recipe, &config);
    let weights = match ranks.is_first() {
        true => start::weights(recipe, &config, &layout)?,
        false => vec![0.0; layout.len()],
    };
    let mut trainer = Trainer::new(recipe, config, weights, ranks)?;
    ranks.broadcast(&mut trainer.weights);
    Ok(trainer)
}

/// Checks that all ranks run the same program on the same recipe and corpus, and that the micro-batches of a
/// step can be shared among them.
pub(super) fn check(recipe: &Recipe, data: &Data, ranks: &mut Ranks) -> Result<()> {
    let (size, accumulation) = (ranks.size(), recipe.training.accumulation);
    if size == 1 {
        return Ok(());
    }
    let corpus = serde_json::to_string(&data.identity).unwrap_or_default();
    let bucket = ranks.bucket() as f64;
    let prints = [
        ("versions of offramp", print(&program())),
        ("recipes", print(&recipe.text())),
        ("corpora", print(&corpus)),
        ("instruction sets (OFFRAMP_KERNELS forces one)", print(&active().name)),
        ("sizes of buckets (--bucket-cap-mb)", bucket),
    ];
    compare(ranks, &prints)?;
    if !accumulation.is_multiple_of(size) {
        let path = recipe.path().to_owned();
        return Err(Error::RanksDoNotDivide { path, accumulation, ranks: size });
    }
    Ok(())
}

/// Checks that all ranks have the same recipe, before they do anything that it asks for.
pub(crate) fn check_recipes(recipe: &Recipe, ranks: &mut Ranks) -> Result<()> {
    compare(ranks, &[("recipes", print(&recipe.text()))])
}

/// Checks that all ranks have the same number under each name.
fn compare(ranks: &mut Ranks, prints: &[(&'static str, f64)]) -> Result<()> {
    let own: Vec<_> = prints.iter().map(|&(_, print)| print).collect();
    let all = ranks.gather(&own);
    for (rank, of_rank) in all.chunks(prints.len()).enumerate() {
        let differs = of_rank.iter().zip(&all).position(|(here, first)| here != first);
        if let Some(what) = differs {
            return Err(Error::RanksDiffer { rank, what: prints[what].0 });
        }
    }
    Ok(())
}

/// A number that another value hardly has.
fn print(value: &impl Hash) -> f64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    (hasher.finish() >> 11) as f64 // whole in `f64`
}

/// The program that runs, where it can be read; its version in any case.
fn program() -> (&'static str, Vec<u8>) {
    let bytes = env::current_exe().and_then(fs::read).unwrap_or_default();
    (env!("CARGO_PKG_VERSION"), bytes)
}

/// Which of the two moments.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    First,
    Second,
}

impl Trainer {
    /// The moments of some values, from the ranks that have them, for all ranks.
    pub(super) fn moments(&self, moment: Moment, range: Range<usize>, ranks: &mut Ranks) -> Vec<f32> {
        let shares = self.bucket_of(&range).within(&range);
        let mut values = vec![0.0; range.len()];
        let held = match moment {
            Moment::First => &self.optimizer.m,
            Moment::Second => &self.optimizer.v,
        };
        if let Some(own) = self.optimizer.own.within(&range) {
            values[shares[ranks.rank()].clone()].copy_from_slice(&held[own.places()]);
        }
        ranks.all_gather(&mut values, &shares);
        values
    }

    /// The bucket in which a tensor lies.
    fn bucket_of(&self, tensor: &Range<usize>) -> &Bucket {
        let index = self.buckets.partition_point(|bucket| bucket.range.end <= tensor.start);
        &self.buckets[index.min(self.buckets.len() - 1)]
    }

    /// Takes what of the first rank's `values` belongs to this rank's share.
    pub(super) fn set_moments(
        &mut self,
        moment: Moment,
        range: Range<usize>,
        values: &mut [f32],
        ranks: &mut Ranks,
    ) {
        ranks.broadcast(values);
        let Some(own) = self.optimizer.own.within(&range) else { return };
        let held = match moment {
            Moment::First => &mut self.optimizer.m,
            Moment::Second => &mut self.optimizer.v,
        };
        let inside = own.values.start - range.start..own.values.end - range.start;
        held[own.places()].copy_from_slice(&values[inside]);
    }

    /// Where each tensor's moments stand, in the order of a checkpoint.
    pub(super) fn moment_places(&self) -> Vec<(Moment, Range<usize>)> {
        let all = |moment| self.layout().tensors().map(move |(_, range)| (moment, range));
        all(Moment::First).chain(all(Moment::Second)).collect()
    }

    /// Gives the first rank all moments, while it writes a checkpoint.
    pub(super) fn give_moments(&self, ranks: &mut Ranks) {
        for (moment, range) in self.moment_places() {
            self.moments(moment, range, ranks);
        }
    }

    /// Takes from the first rank, which reads a checkpoint, the weights and the moments of the share.
    pub(super) fn take_values(&mut self, ranks: &mut Ranks) {
        ranks.broadcast(&mut self.weights);
        for (moment, range) in self.moment_places() {
            self.set_moments(moment, range.clone(), &mut vec![0.0; range.len()], ranks);
        }
    }
}
