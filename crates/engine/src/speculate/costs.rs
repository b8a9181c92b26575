//! What drafting and verifying take on this machine, learnt from the rounds themselves.

use offramp_model::{DraftHead, Llama};

/// Rows of a call whose time is remembered by itself; more count as so many.
pub(crate) const ROWS: usize = 16;
/// Weight of a new sample, below what is known and above it: what disturbs a call makes it longer, never shorter, and
/// the first of its kind most. One that is longer by more than a factor of two counts as that.
const SHORTER: f64 = 0.5;
const LONGER: f64 = 0.1;
const FARTHEST: f64 = 2.0;
/// How much longer a call takes for each row beyond the first, as long as nobody has seen one: reading weights is most
/// of it.
const ROW: f64 = 0.03;
/// Bytes per second, as long as nobody has measured: only ratios matter then.
const BANDWIDTH: f64 = 2e10;

/// Seconds of a layer, of the head with its choices, and of a drafted token's head.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    layer: ByRows,
    head: ByRows,
    draft_head: ByRows,
    clock: Clock,
}

/// Where times come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clock {
    /// They are measured.
    Machine,
    /// They are what the bytes suggest: the same wherever it runs.
    Bytes,
}

/// Seconds of a call by its number of rows.
#[derive(Clone, Debug)]
struct ByRows {
    guess: f64, // of one row
    seen: [Option<f64>; ROWS + 1],
}

impl Costs {
    pub(crate) fn new(model: &Llama, draft_head: Option<&DraftHead>, clock: Clock) -> Self {
        let seconds = |bytes: u64| ByRows { guess: bytes as f64 / BANDWIDTH, seen: [None; ROWS + 1] };
        Self {
            layer: seconds(model.forward_work(0..1, 1, 0).bytes),
            head: seconds(model.head_work(None, 1).bytes),
            draft_head: seconds(model.head_work(draft_head, 1).bytes),
            clock,
        }
    }

    /// `layers` layers moved `rows` rows in `seconds`.
    pub(crate) fn saw_layers(&mut self, layers: usize, rows: usize, seconds: f64) {
        if layers > 0 {
            self.layer.saw(rows, seconds / layers as f64, self.clock);
        }
    }

    /// The head read `rows` rows, and what follows was chosen.
    pub(crate) fn saw_head(&mut self, rows: usize, seconds: f64) {
        self.head.saw(rows, seconds, self.clock);
    }

    /// The head that drafts read one row, and a token was chosen.
    pub(crate) fn saw_draft_head(&mut self, seconds: f64) {
        self.draft_head.saw(1, seconds, self.clock);
    }

    /// A token without a draft.
    pub(crate) fn plain(&self, depth: usize) -> f64 {
        depth as f64 * self.layer.at(1) + self.head.at(1)
    }

    /// One token through the layers that draft.
    pub(crate) fn extend(&self, exit_layer: usize) -> f64 {
        exit_layer as f64 * self.layer.at(1)
    }

    /// The head that drafts.
    pub(crate) fn draft_head(&self) -> f64 {
        self.draft_head.at(1)
    }

    /// A layer and the head over each number of rows.
    pub(crate) fn by_rows(&self) -> [(f64, f64); ROWS + 1] {
        std::array::from_fn(|rows| (self.layer.at(rows.max(1)), self.head.at(rows.max(1))))
    }
}

impl ByRows {
    fn saw(&mut self, rows: usize, seconds: f64, clock: Clock) {
        if clock == Clock::Bytes || !(1..=ROWS).contains(&rows) {
            return;
        }
        let seen = &mut self.seen[rows];
        *seen = Some(match *seen {
            Some(old) if seconds < old => old + SHORTER * (seconds - old),
            Some(old) => old + LONGER * (seconds.min(old * FARTHEST) - old),
            None => seconds,
        });
    }

    /// Between two that were seen on the line between them, beyond on that of the last two.
    fn at(&self, rows: usize) -> f64 {
        let known = |rows: usize| self.seen[rows].map(|seconds| (rows as f64, seconds));
        let below = (1..=rows.min(ROWS)).rev().find_map(known);
        let above = (rows + 1..=ROWS).find_map(known);
        let rows = rows as f64;
        match (below, above) {
            (Some((r, t)), Some((s, u))) => t + (u - t) * (rows - r) / (s - r),
            (Some((r, t)), None) => {
                let earlier = (1..r as usize).rev().find_map(known);
                let slope = earlier.map_or(t * ROW, |(q, s)| ((t - s) / (r - q)).max(0.0));
                t + slope * (rows - r)
            }
            (None, Some((_, u))) => u,
            (None, None) => self.guess * (1.0 + ROW * (rows - 1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_lies_between_what_was() {
        let mut times = ByRows { guess: 1.0, seen: [None; ROWS + 1] };
        assert_eq!((times.at(1), times.at(2)), (1.0, 1.0 + ROW));
        times.saw(1, 10.0, Clock::Machine);
        assert!((times.at(3) - 10.0 * (1.0 + 2.0 * ROW)).abs() < 1e-9);
        times.saw(5, 14.0, Clock::Machine);
        assert_eq!((times.at(3), times.at(5), times.at(7), times.at(99)), (12.0, 14.0, 16.0, 108.0));
    }

    #[test]
    fn one_outlier_moves_little() {
        let mut times = ByRows { guess: 1.0, seen: [None; ROWS + 1] };
        times.saw(1, 10.0, Clock::Machine);
        times.saw(1, 1e9, Clock::Machine);
        assert_eq!(times.at(1), 11.0);
        times.saw(1, 1.0, Clock::Bytes);
        times.saw(0, 1.0, Clock::Machine);
        times.saw(ROWS + 1, 1.0, Clock::Machine);
        assert_eq!(times.at(1), 11.0);
        times.saw(1, 9.0, Clock::Machine);
        assert_eq!(times.at(1), 10.0);
    }
}
