//! How fast this machine reads memory: the limit of decoding.

use crate::linear::{Job, Operand, Weight, linear};
use crate::{pool, team};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Larger than any last-level cache, so that each pass reads memory.
const BYTES: usize = 512 << 20;
/// Length of a row, where the buffer is read as a matrix.
const ROW: usize = 4096;
/// Floats of a cache line.
const LINE: usize = 16;
/// Streams that a thread reads in turn, so that several pages are read at a time.
const STREAMS: usize = 4;
/// Passes of each kind.
const PASSES: usize = 2;

/// A buffer to read from. It was written before: a first touch would measure the operating system.
#[derive(Debug)]
pub struct Probe<F = Vec<f32>> {
    floats: F,
}

/// Floats that a probe reads.
pub const FLOATS: usize = BYTES / size_of::<f32>();

impl Default for Probe {
    fn default() -> Self {
        Self::new(vec![1.0; FLOATS])
    }
}

impl<F: AsRef<[f32]> + Sync> Probe<F> {
    /// Reads `floats`, so that a caller that has large pages can measure on them: they are faster.
    ///
    /// # Panics
    /// If there are not [`FLOATS`].
    pub fn new(floats: F) -> Self {
        assert_eq!(floats.as_ref().len(), FLOATS, "a buffer larger than caches");
        Self { floats }
    }

    /// Bytes per second that the memory gives to all threads together.
    ///
    /// The buffer is read twice by a product, which prefetches, and twice by plain sums over several streams,
    /// which leave prefetching to the processor. Which is faster depends on the machine. The best pass
    /// counts, because other work on the machine can only slow a pass down.
    pub fn read(&self) -> f64 {
        let (x, mut out) = ([1.0; ROW], vec![0.0; FLOATS / ROW]);
        let mut operand = Operand::default();
        let mut product = || {
            let job = Job { weight: Weight::F32(self.floats.as_ref()), out: &mut out };
            linear(&x, ROW, &mut operand, &mut [job]);
        };
        let mut best = Duration::MAX;
        for _ in 0..PASSES {
            best = best.min(time(&mut product)).min(time(&mut || self.sum()));
        }
        black_box(out);
        BYTES as f64 / best.as_secs_f64()
    }

    /// Reads everything once, each thread its own part.
    fn sum(&self) {
        let (lines, _) = self.floats.as_ref().as_chunks::<LINE>();
        let threads = pool::threads();
        let (next, total) = (AtomicU64::new(0), AtomicU64::new(0));
        // A thread takes parts until none is left, because the team may be smaller than the pool.
        team::together(threads, &|_| {
            while let Some(part) = lines.chunks(lines.len().div_ceil(threads)).nth(take(&next)) {
                total.fetch_add(sum_of(part), Ordering::Relaxed);
            }
        });
        black_box(total);
    }
}

fn take(next: &AtomicU64) -> usize {
    next.fetch_add(1, Ordering::Relaxed) as usize
}

fn time(pass: &mut dyn FnMut()) -> Duration {
    let start = Instant::now();
    pass();
    start.elapsed()
}

/// The sum of all bits as integers, whose order does not matter, so that the compiler vectorizes it.
fn sum_of(lines: &[[f32; LINE]]) -> u64 {
    let length = lines.len() / STREAMS;
    let streams: [_; STREAMS] = std::array::from_fn(|s| &lines[s * length..][..length]);
    let mut sums = [[0u32; LINE]; STREAMS];
    for line in 0..length {
        for (sums, stream) in sums.iter_mut().zip(streams) {
            for (sum, value) in sums.iter_mut().zip(stream[line]) {
                *sum = sum.wrapping_add(value.to_bits());
            }
        }
    }
    sums.iter().flatten().map(|&sum| u64::from(sum)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_every_stream_is_read() {
        let mut lines = vec![[0.0; LINE]; 3 * STREAMS];
        for i in 0..lines.len() * LINE {
            lines[i / LINE][i % LINE] = f32::from_bits(1 + i as u32);
        }
        let count = (lines.len() * LINE) as u64;
        assert_eq!(sum_of(&lines), count * (count + 1) / 2);
    }
}
