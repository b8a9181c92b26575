//! What a sweep found.

use crate::Spread;
use offramp_model::Format;
use serde::Serialize;

/// One exit and length.
#[derive(Clone, Debug, Serialize)]
pub struct SweepPoint {
    /// The exit layer that drafts.
    pub exit_layer: usize,
    /// The format of the copied layers that draft; `None` for the model's own layers.
    pub draft_format: Option<Format>,
    /// The most tokens drafted in a round.
    pub num_speculations: usize,
    /// Accepted tokens over drafted tokens.
    pub acceptance_rate: f64,
    /// The chance that a token is accepted if all before it in the draft were.
    pub acceptance_of_next: f64,
    /// The share of drafts whose first token, first two, … were accepted.
    pub acceptance_by_position: Vec<f64>,
    /// Tokens accepted of a draft, in the mean.
    pub accepted_length: f64,
    /// Tokens per second.
    pub decode: Spread,
    /// Over plain decoding beside it.
    pub speed_up: Spread,
}

/// The adaptive policy. In the sweep it begins without knowledge for each text.
#[derive(Clone, Debug, Serialize)]
pub struct AutoPoint {
    /// Accepted tokens over drafted tokens; `None` if it drafted none.
    pub acceptance_rate: Option<f64>,
    /// Tokens per second.
    pub decode: Spread,
    /// Over plain decoding beside it.
    pub speed_up: Spread,
    /// Its tokens per second over the best point's, text by text, in turn with it after the sweep.
    pub of_best: Spread,
    /// The same, for a policy that keeps what it learnt from text to text.
    pub kept_of_best: Spread,
    /// Its choices over all rounds. The full depth stands for tokens without a draft.
    pub chosen: Vec<ChosenExit>,
}

/// How often an exit drafted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ChosenExit {
    /// The exit layer.
    pub exit_layer: usize,
    /// The format of the copied layers that drafted; `None` for the model's own layers.
    pub draft_format: Option<Format>,
    /// Rounds.
    pub rounds: usize,
    /// The tokens drafted in these rounds.
    pub drafted: usize,
}

/// What a sweep says of drafting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Neither the best point nor `auto` is faster than plain decoding in the median.
    Loses,
    /// One of them is in the median, and none in every round.
    Unsure,
    /// One of them is in every round.
    Pays,
}

/// The result of a sweep.
#[derive(Clone, Debug, Serialize)]
pub struct SweepReport {
    /// Whether the model's configuration has the `early_exit` that training with exits writes. Models trained
    /// with exits elsewhere say nothing of it.
    pub trained_for_exits: bool,
    /// Plain decoding, tokens per second.
    pub plain: Spread,
    /// All points, exit by exit.
    pub points: Vec<SweepPoint>,
    /// The index of the point with the highest median speed-up.
    pub best: usize,
    /// Whether the best point or `auto` pays.
    pub verdict: Verdict,
    /// The adaptive policy.
    pub auto: AutoPoint,
    /// New tokens of each text.
    pub new_tokens: usize,
    /// Texts of each point.
    pub runs: usize,
    /// The instruction set in use.
    pub kernels: &'static str,
    /// The number of threads.
    pub threads: usize,
}

impl Verdict {
    pub(super) fn of(speed_up: &Spread) -> Self {
        match (speed_up.median > 1.0, speed_up.min > 1.0) {
            (true, true) => Self::Pays,
            (true, false) => Self::Unsure,
            (false, _) => Self::Loses,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_about_every_round() {
        let verdict = |rounds: &[f64]| Verdict::of(&Spread::of(rounds.to_vec()));
        assert_eq!(verdict(&[1.01, 1.2, 1.3]), Verdict::Pays);
        assert_eq!(verdict(&[0.99, 1.2, 1.3]), Verdict::Unsure);
        assert_eq!(verdict(&[0.9, 1.0, 1.3]), Verdict::Loses);
        assert_eq!(verdict(&[f64::NAN]), Verdict::Loses);
    }
}
