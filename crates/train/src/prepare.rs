//! Preparing a corpus in several processes: the ranks of a run as `offramp_text` knows them.

use offramp_ranks::{Ranks, on_this_machine};
use offramp_text::{Crew, PrepareOptions, PrepareProgress, PrepareSummary, Result, prepare_together};
use std::thread;

/// Writes a prepared corpus on all ranks, which call it with the same options. Each encodes with so many
/// threads; without a number, with its part of the machine's. The first returns the summary, and calls
/// `progress`.
///
/// # Errors
/// As [`prepare_together`]. After an error of one rank the others wait for it: [`Ranks::abort`] ends them.
pub fn prepare(
    options: &PrepareOptions,
    ranks: &mut Ranks,
    threads: Option<usize>,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<Option<PrepareSummary>> {
    let own = || thread::available_parallelism().map_or(1, usize::from) / on_this_machine();
    let threads = threads.unwrap_or_else(own).max(1);
    prepare_together(options, &mut RankCrew { ranks, threads }, progress)
}

struct RankCrew<'r> {
    ranks: &'r mut Ranks,
    threads: usize,
}

impl Crew for RankCrew<'_> {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn size(&self) -> usize {
        self.ranks.size()
    }

    fn threads(&self) -> usize {
        self.threads
    }

    fn gather(&mut self, numbers: &[u64]) -> Vec<u64> {
        // Whole in `f64`: they are below 2^53.
        let numbers: Vec<f64> = numbers.iter().map(|&number| number as f64).collect();
        self.ranks.gather(&numbers).into_iter().map(|number| number as u64).collect()
    }
}
