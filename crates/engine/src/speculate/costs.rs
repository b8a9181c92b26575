//! What drafting and verifying take on this machine, learnt from the rounds themselves.

use crate::workspace::{Call, Timed};
use offramp_model::{DraftHead, Llama};

/// Rows of a call whose time is remembered; longer calls, which prompts make, say little of short ones.
const ROWS: usize = 128;
/// Weight of a new sample, once there are some: before, it is their mean. One that is longer by more than
/// this factor (the machine was elsewhere) counts as that.
const NEW: f64 = 0.15;
const FARTHEST: f64 = 1.5;
/// How much longer a call takes for each row beyond the first, as long as nobody has seen one: reading
/// weights is most of it.
const ROW: f64 = 0.03;
/// What that guess counts beside what was seen, in squared rows.
const GUESS: f64 = 1.0;
/// Samples of a number of rows beyond which more make it no surer.
const SURE: f64 = 8.0;
/// Bytes per second, as long as nobody has measured: only ratios matter then.
const BANDWIDTH: f64 = 2e10;

/// Seconds of a layer, of the head with its choices, and of the head that drafts with its choices.
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

/// Seconds of a call, for each number of rows of which any was seen.
#[derive(Clone, Debug)]
struct ByRows {
    guess: f64,      // of one row
    seen: Vec<Seen>, // fewest rows first
}

/// A mean that follows what it is the mean of.
#[derive(Clone, Copy, Debug)]
struct Seen {
    rows: usize,
    seconds: f64,
    samples: f64,
}

impl Costs {
    pub(crate) fn new(model: &Llama, draft_head: Option<&DraftHead>, clock: Clock) -> Self {
        let guess = |bytes: u64| ByRows { guess: bytes as f64 / BANDWIDTH, seen: Vec::new() };
        Self {
            layer: guess(model.layer_work().bytes),
            head: guess(model.head_work(None, 1).bytes),
            draft_head: guess(model.head_work(draft_head, 1).bytes),
            clock,
        }
    }

    /// What a step's calls took.
    pub(crate) fn learn(&mut self, times: &[Timed]) {
        if self.clock == Clock::Bytes {
            return;
        }
        for &Timed { call, rows, seconds } in times {
            match call {
                Call::Layers(layers) => self.layer.saw(rows, seconds / layers.max(1) as f64),
                Call::Head => self.head.saw(rows, seconds),
                Call::DraftHead => self.draft_head.saw(rows, seconds),
            }
        }
    }

    /// How often a layer was timed.
    pub(crate) fn samples(&self) -> f64 {
        self.layer.seen.iter().map(|seen| seen.samples).sum()
    }

    /// Seconds of so many layers over so many rows.
    pub(crate) fn layers(&self, layers: usize, rows: usize) -> f64 {
        layers as f64 * self.layer.at(rows)
    }

    /// Seconds of the head over so many rows.
    pub(crate) fn head(&self, rows: usize) -> f64 {
        self.head.at(rows)
    }

    /// Seconds of the head that drafts over so many rows.
    pub(crate) fn draft_head(&self, rows: usize) -> f64 {
        self.draft_head.at(rows)
    }
}

impl ByRows {
    fn saw(&mut self, rows: usize, seconds: f64) {
        if rows == 0 || rows > ROWS {
            return;
        }
        let expected = if self.seen.is_empty() { f64::INFINITY } else { self.at(rows) };
        let place = self.seen.partition_point(|seen| seen.rows < rows);
        match self.seen.get_mut(place).filter(|seen| seen.rows == rows) {
            Some(seen) => {
                seen.samples += 1.0;
                let sample = seconds.min(FARTHEST * expected);
                seen.seconds += (1.0 / seen.samples).max(NEW) * (sample - seen.seconds);
            }
            // Nobody knows yet how much longer so many rows take.
            None => self.seen.insert(place, Seen { rows, seconds, samples: 1.0 }),
        }
    }

    /// A straight line through what was seen, most of all near `rows`: a call takes as long for a few rows as
    /// for one, and longer in proportion for many, so that no one line serves for all.
    fn at(&self, rows: usize) -> f64 {
        let rows = rows.max(1) as f64;
        if self.seen.is_empty() {
            return self.guess * (1.0 + ROW * (rows - 1.0));
        }
        let weight = |seen: &Seen| {
            let distance = (seen.rows as f64 / rows).ln();
            seen.samples.min(SURE) * (-distance * distance).exp()
        };
        let sum =
            |of: &dyn Fn(&Seen) -> f64| self.seen.iter().map(|seen| weight(seen) * of(seen)).sum::<f64>();
        let all = sum(&|_| 1.0).max(f64::MIN_POSITIVE);
        let (mean_rows, mean) = (sum(&|seen| seen.rows as f64) / all, sum(&|seen| seen.seconds) / all);
        let across = sum(&|seen| (seen.rows as f64 - mean_rows) * (seen.seconds - mean)) / all;
        let along = sum(&|seen| (seen.rows as f64 - mean_rows).powi(2)) / all;
        let one = mean / (1.0 + ROW * (mean_rows - 1.0));
        let slope = ((across + GUESS * ROW * one) / (along + GUESS)).max(0.0);
        (mean + slope * (rows - mean_rows)).max(0.3 * mean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times() -> ByRows {
        ByRows { guess: 1.0, seen: Vec::new() }
    }

    #[test]
    fn every_row_beyond_the_first_is_a_guess_at_first() {
        let mut times = times();
        assert_eq!((times.at(1), times.at(2)), (1.0, 1.0 + ROW));
        times.saw(1, 10.0);
        assert!((times.at(3) - 10.0 * (1.0 + 2.0 * ROW)).abs() < 1e-9);
        (0..20).for_each(|_| times.saw(1, 10.0));
        (0..20).for_each(|_| times.saw(5, 12.0));
        assert!((times.at(5) - 12.0).abs() < 0.2 && (times.at(1) - 10.0).abs() < 0.2, "{}", times.at(5));
    }

    /// Memory is the limit up to eight rows, arithmetic beyond.
    #[test]
    fn it_follows_a_bend() {
        let (mut times, truth) = (times(), |rows: usize| 8f64.max(rows as f64));
        for rows in [1, 2, 4, 8, 16, 32, 64] {
            (0..8).for_each(|_| times.saw(rows, truth(rows)));
        }
        for rows in [1, 3, 8, 20, 48, 64] {
            let (found, truth) = (times.at(rows), truth(rows));
            assert!((found / truth - 1.0).abs() < 0.25, "{rows} rows: {found} for {truth}");
        }
    }

    #[test]
    fn one_outlier_moves_little() {
        let mut times = times();
        times.saw(1, 10.0);
        times.saw(1, 1e9);
        assert_eq!(times.at(1), 12.5);
        times.saw(0, 1.0);
        times.saw(ROWS + 1, 1.0);
        assert_eq!(times.at(1), 12.5);
        times.saw(1, 9.5);
        assert_eq!(times.at(1), 11.5);
    }
}
