//! What drafting and verifying take on this machine, learnt from the rounds themselves.

use offramp_model::{DraftHead, Llama};

/// Rows of a call whose time is remembered by itself; more count as so many.
pub(crate) const ROWS: usize = 16;
/// Weight of a new sample, once there are some: before, it is their mean. One that is longer by more than this factor (the
/// machine was elsewhere) counts as that.
const NEW: f64 = 0.15;
const FARTHEST: f64 = 1.5;
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

/// Seconds of a call: of one row, and by what share of that each further row makes it longer.
#[derive(Clone, Copy, Debug)]
struct ByRows {
    one: Mean,
    row: Mean,
}

/// A mean that follows what it is the mean of.
#[derive(Clone, Copy, Debug)]
struct Mean {
    value: f64,
    samples: f64,
}

impl Mean {
    fn guess(value: f64) -> Self {
        Self { value, samples: 0.0 }
    }

    fn saw(&mut self, sample: f64) {
        self.samples += 1.0;
        self.value += (1.0 / self.samples).max(NEW) * (sample - self.value);
    }
}

impl Costs {
    pub(crate) fn new(model: &Llama, draft_head: Option<&DraftHead>, clock: Clock) -> Self {
        let seconds =
            |bytes: u64| ByRows { one: Mean::guess(bytes as f64 / BANDWIDTH), row: Mean::guess(ROW) };
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
        if clock == Clock::Bytes || rows == 0 {
            return;
        }
        let expected = if self.one.samples > 0.0 { self.at(rows) } else { f64::INFINITY };
        let seconds = seconds.min(FARTHEST * expected);
        match rows {
            1 => self.one.saw(seconds),
            _ if self.one.samples > 0.0 => {
                self.row.saw((seconds / self.one.value - 1.0).max(0.0) / (rows - 1) as f64);
            }
            _ => (),
        }
    }

    fn at(&self, rows: usize) -> f64 {
        self.one.value * (1.0 + self.row.value * (rows.max(1) - 1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> ByRows {
        ByRows { one: Mean::guess(1.0), row: Mean::guess(ROW) }
    }

    #[test]
    fn every_row_beyond_the_first_takes_as_long() {
        let mut times = times();
        assert_eq!((times.at(1), times.at(2)), (1.0, 1.0 + ROW));
        times.saw(5, 12.0, Clock::Machine);
        assert_eq!(times.at(1), 1.0, "of what share, if nobody knows of one row?");
        times.saw(1, 10.0, Clock::Machine);
        assert!((times.at(3) - 10.0 * (1.0 + 2.0 * ROW)).abs() < 1e-9);
        times.saw(5, 12.0, Clock::Machine);
        assert!((times.at(5) - 12.0).abs() < 1e-9 && (times.at(9) - 14.0).abs() < 1e-9);
    }

    #[test]
    fn one_outlier_moves_little() {
        let mut times = times();
        times.saw(1, 10.0, Clock::Machine);
        times.saw(1, 1e9, Clock::Machine);
        assert_eq!(times.at(1), 12.5);
        times.saw(1, 1.0, Clock::Bytes);
        times.saw(0, 1.0, Clock::Machine);
        assert_eq!(times.at(1), 12.5);
        times.saw(1, 9.5, Clock::Machine);
        assert_eq!(times.at(1), 11.5);
    }
}
