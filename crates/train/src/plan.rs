//! What a step of a recipe takes over several processes, by arithmetic.

use crate::memory::Need;
use crate::recipe::Recipe;
use offramp_model::Config;
use serde::Serialize;

/// A run over a number of processes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// The processes.
    pub ranks: usize,
    /// Micro-batches of a step that each computes.
    pub micro_batches: usize,
    /// Tokens of a step, all processes together.
    pub tokens_per_step: u64,
    /// Bytes of memory that each process needs.
    pub memory: u64,
    /// Bytes that each process sends in a step, and as many that it receives.
    pub sent: u64,
    /// Whether the run has the bits of one process.
    pub exact: bool,
}

/// How long a step takes, and how much of the ideal that is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StepTime {
    /// Seconds of a step: its micro-batches, and what of the exchange they do not hide.
    pub seconds: f64,
    /// The share of the speed that the processes would have without an exchange.
    pub share_of_ideal: f64,
}

impl Plan {
    /// The plan for `ranks` processes; none if they cannot share a step's micro-batches.
    ///
    /// A gradient is reduced and scattered, and the weights are gathered: a process sends all values but its
    /// own share twice, 2 · 4 · P · (N − 1) / N bytes (Rajbhandari et al. 2020, section 7).
    pub fn of(recipe: &Recipe, config: &Config, ranks: usize) -> Option<Self> {
        let training = &recipe.training;
        if ranks == 0 || !training.accumulation.is_multiple_of(ranks) {
            return None;
        }
        let micro_batches = training.accumulation / ranks;
        let values = u128::from(config.parameter_count());
        let sent = 2 * 4 * values * (ranks as u128 - 1) / ranks as u128;
        Some(Self {
            ranks,
            micro_batches,
            tokens_per_step: (training.batch_size * training.sequence_length * training.accumulation) as u64,
            memory: Need::of_rank(recipe, config, ranks).bytes(),
            sent: u64::try_from(sent).unwrap_or(u64::MAX),
            exact: training.exact_ranks && (ranks == 1 || micro_batches.is_power_of_two()),
        })
    }

    /// All numbers of processes that can share a step.
    pub fn all(recipe: &Recipe, config: &Config) -> Vec<Self> {
        (1..=recipe.training.accumulation).filter_map(|ranks| Self::of(recipe, config, ranks)).collect()
    }

    /// The time of a step where one process computes so many tokens in a second, and a link carries so many
    /// bytes each way.
    ///
    /// Gradients are half of the bytes, and go out during the backward of the last micro-batch, which is two
    /// thirds of its operations. The weights come back when nothing else is done.
    pub fn step_time(&self, tokens_per_second: f64, bytes_per_second: f64) -> StepTime {
        let compute = self.tokens_per_step as f64 / self.ranks as f64 / tokens_per_second;
        let backward = compute / self.micro_batches as f64 * 2.0 / 3.0;
        let exchange = self.sent as f64 / bytes_per_second;
        let seconds = compute + exchange - backward.min(exchange / 2.0);
        StepTime { seconds, share_of_ideal: compute / seconds }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_plan_counts_what_a_step_takes() {
        let keys =
            "[data]\ncorpus = \"c\"\n[training]\naccumulation = 12\nbatch_size = 2\nsequence_length = 100\n";
        let recipe = Recipe::from_toml(keys, Path::new("r.toml")).unwrap();
        let config = recipe.config(50_257, None).unwrap();
        let plans = Plan::all(&recipe, &config);
        assert_eq!(plans.iter().map(|plan| plan.ranks).collect::<Vec<_>>(), [1, 2, 3, 4, 6, 12]);
        let exact: Vec<_> = plans.iter().filter(|plan| plan.exact).map(|plan| plan.ranks).collect();
        assert_eq!(exact, [1, 3, 6, 12], "4, 2 and 1 micro-batches each");
        let four = plans[3];
        assert_eq!((four.tokens_per_step, four.micro_batches), (2400, 3));
        assert_eq!(four.sent, config.parameter_count() * 6, "two buffers of floats, three quarters of each");
        assert!(four.memory < plans[0].memory && plans[0].sent == 0);
        // 10 s of three micro-batches, and 10 s on the wire, of which the last backward hides 20 / 9.
        let time = four.step_time(60.0, four.sent as f64 / 10.0);
        assert!(
            (time.seconds - (20.0 - 20.0 / 9.0)).abs() < 1e-9 && (time.share_of_ideal - 0.5625).abs() < 1e-9
        );
        let fast = four.step_time(60.0, four.sent as f64 / 2.0);
        assert_eq!(fast.seconds, 11.0, "half of a short exchange is hidden");
    }
}
