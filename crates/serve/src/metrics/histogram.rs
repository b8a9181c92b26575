//! How often something took how long.

use std::time::Duration;

/// Upper bounds in seconds.
const BOUNDS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 60.0];

/// Counts by bound.
#[derive(Debug, Default)]
pub(super) struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum: f64,
}

impl Histogram {
    pub(super) fn add(&mut self, taken: Duration) {
        let seconds = taken.as_secs_f64();
        self.sum += seconds;
        self.count += 1;
        if let Some(index) = BOUNDS.iter().position(|&bound| seconds <= bound) {
            self.counts[index] += 1;
        }
    }

    /// Each bound, and how many took at most as long.
    pub(super) fn buckets(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0;
        BOUNDS.iter().zip(&self.counts).map(move |(&bound, count)| {
            below += count;
            (bound, below)
        })
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let mut histogram = Histogram::default();
        for seconds in [0.0015, 0.002, 0.3, 100.0] {
            histogram.add(Duration::from_secs_f64(seconds));
        }
        let buckets: Vec<_> = histogram.buckets().collect();
        assert_eq!((buckets[0], buckets[1], buckets[8]), ((0.001, 0), (0.002, 2), (0.5, 3)));
        assert_eq!((buckets[13].1, histogram.count()), (3, 4));
        assert!((histogram.sum() - 100.3035).abs() < 1e-9);
    }
}
