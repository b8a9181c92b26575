//! What drafting and verifying take on this machine, learnt from the rounds themselves.

use super::drafter::{Copies, Drafter};
use crate::workspace::{Call, CallTime};
use offramp_model::Llama;

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
/// Samples that a guess of one row counts for.
const FEW: f64 = 0.5;
/// How fast a number of rows says less of another.
const FAR: f64 = 4.0;
/// Samples of a number of rows beyond which more make it no surer.
const SURE: f64 = 8.0;
/// Bytes per second, as long as nobody has measured: only ratios matter then.
pub(super) const BANDWIDTH: f64 = 2e10;

/// Seconds of a layer, of a copy of one, of the head with its choices, and of the head that drafts with its
/// choices.
#[derive(Clone, Debug)]
pub(crate) struct Costs {
    layer: ByRows,
    copy: ByRows,
    copy_bytes: f64, // of a copy, those of the layer being 1
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
    guess: f64,        // of one row
    seen: Vec<Sample>, // fewest rows first
}

/// A mean that follows what it is the mean of.
#[derive(Clone, Copy, Debug)]
struct Sample {
    rows: usize,
    seconds: f64,
    samples: f64,
}

impl Costs {
    pub(crate) fn new(model: &Llama, copies: Copies<'_>, clock: Clock) -> Self {
        let guess = |bytes: u64| ByRows { guess: bytes as f64 / BANDWIDTH, seen: Vec::new() };
        let layer = model.layer_work().bytes;
        let copy = copies.model().map_or(layer, |copy| copy.layer_work().bytes);
        Self {
            layer: guess(layer),
            copy: guess(copy),
            copy_bytes: copy as f64 / layer.max(1) as f64,
            head: guess(model.head_work(None, 1).bytes),
            draft_head: guess(model.head_work(copies.head, 1).bytes),
            clock,
        }
    }

    /// What a step's calls took.
    pub(crate) fn learn(&mut self, times: &[CallTime]) {
        if self.clock == Clock::Bytes {
            return;
        }
        for &CallTime { call, rows, seconds } in times {
            match call {
                Call::Layers(layers) => self.layer.saw(rows, seconds / layers.max(1) as f64),
                Call::DraftLayers(layers) => {
                    let seconds = seconds / layers.max(1) as f64;
                    // Fewer bits do not take longer; who comes first may have to wait for the memory.
                    let first = self.copy.seen.is_empty() && !self.layer.seen.is_empty();
                    let most = if first { self.layer.at(rows) } else { f64::INFINITY };
                    self.copy.saw(rows, seconds.min(most));
                }
                Call::Head => self.head.saw(rows, seconds),
                Call::DraftHead => self.draft_head.saw(rows, seconds),
            }
        }
    }

    /// Whether anything was measured, or is not to be.
    pub(crate) fn are_known(&self) -> bool {
        self.clock == Clock::Bytes || !self.layer.seen.is_empty()
    }

    /// Whether times are those of this machine.
    pub(crate) fn are_measured(&self) -> bool {
        self.clock == Clock::Machine
    }

    /// All costs of up to so many rows.
    pub(crate) fn table(&self, rows: usize) -> CostTable {
        let [layer, head, draft_head] =
            [&self.layer, &self.head, &self.draft_head].map(|costs| costs.table(rows));
        let copy = (0..=rows).map(|rows| self.copy(rows)).collect();
        CostTable { layer, copy, head, draft_head }
    }

    /// Seconds of a copy of a layer over so many rows: before one was seen, as its bytes suggest.
    fn copy(&self, rows: usize) -> f64 {
        if self.copy.seen.is_empty() { self.copy_bytes * self.layer.at(rows) } else { self.copy.at(rows) }
    }

    /// Seconds of the layers that draft over so many rows.
    pub(crate) fn drafts(&self, drafter: Drafter, rows: usize) -> f64 {
        let layer = if drafter.apart { self.copy(rows) } else { self.layer.at(rows) };
        drafter.exit_layer as f64 * layer
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

/// Costs of every number of rows up to some: a plan asks for each many times.
#[derive(Clone, Debug)]
pub(crate) struct CostTable {
    layer: Vec<f64>, // [rows + 1]
    copy: Vec<f64>,
    head: Vec<f64>,
    draft_head: Vec<f64>,
}

impl CostTable {
    /// Seconds of the layers that draft over so many rows.
    pub(crate) fn drafts(&self, drafter: Drafter, rows: usize) -> f64 {
        let layers = if drafter.apart { &self.copy } else { &self.layer };
        drafter.exit_layer as f64 * layers[rows.min(layers.len() - 1)]
    }

    /// Seconds of so many layers over so many rows.
    pub(crate) fn layers(&self, layers: usize, rows: usize) -> f64 {
        layers as f64 * self.layer[rows.min(self.layer.len() - 1)]
    }

    /// Seconds of the head over so many rows.
    pub(crate) fn head(&self, rows: usize) -> f64 {
        self.head[rows.min(self.head.len() - 1)]
    }

    /// Seconds of the head that drafts over so many rows.
    pub(crate) fn draft_head(&self, rows: usize) -> f64 {
        self.draft_head[rows.min(self.draft_head.len() - 1)]
    }
}

impl ByRows {
    fn table(&self, rows: usize) -> Vec<f64> {
        (0..=rows).map(|rows| self.at(rows)).collect()
    }

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
            None => self.seen.insert(place, Sample { rows, seconds, samples: 1.0 }),
        }
    }

    /// A straight line through what was seen, most of all near `rows`: a call takes as long for a few rows as
    /// for one, and longer in proportion for many, so that no one line serves for all.
    fn at(&self, rows: usize) -> f64 {
        let rows = rows.max(1) as f64;
        if self.seen.is_empty() {
            return self.guess * (1.0 + ROW * (rows - 1.0));
        }
        let (mut all, mut sum_rows, mut sum, mut squares, mut products) = (0.0, 0.0, 0.0, 0.0, 0.0);
        // One row is guessed short until it is seen: a guess that is too short is soon put right, by the
        // plain steps that it brings, and one that is too long brings none.
        let alone = self.seen.first().filter(|first| first.rows > 1);
        let alone =
            alone.map(|first| Sample { rows: 1, seconds: self.guess.min(first.seconds), samples: FEW });
        for seen in alone.iter().chain(&self.seen) {
            let at = seen.rows as f64;
            // 1 at the same number of rows, and the less the more times as many or as few they are.
            let near = at * rows / (at * rows + FAR * (at - rows) * (at - rows));
            let weight = seen.samples.min(SURE) * near * near;
            all += weight;
            sum_rows += weight * at;
            sum += weight * seen.seconds;
            squares += weight * at * at;
            products += weight * at * seen.seconds;
        }
        let (mean_rows, mean) = (sum_rows / all, sum / all);
        let across = products / all - mean_rows * mean;
        let along = (squares / all - mean_rows * mean_rows).max(0.0);
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

    #[test]
    fn one_row_is_guessed_short_until_it_is_seen() {
        let mut times = times();
        (0..5).for_each(|_| times.saw(8, 10.0));
        assert!(times.at(1) < 2.0 && times.at(8) > 9.0, "{} {}", times.at(1), times.at(8));
        times.saw(1, 6.0);
        assert!((times.at(1) - 6.0).abs() < 1.0, "{}", times.at(1));
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
