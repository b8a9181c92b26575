//! How fast this machine reads memory: the limit of decoding.

use rayon::prelude::*;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Larger than any last-level cache, so that what is read comes from memory.
const BYTES: usize = 256 << 20;

/// A buffer to read from, written once (a first touch would measure the operating system).
#[derive(Debug)]
pub struct Probe {
    floats: Vec<f32>,
}

impl Default for Probe {
    fn default() -> Self {
        Self { floats: vec![1.0; BYTES / size_of::<f32>()] }
    }
}

impl Probe {
    /// Bytes per second that all threads of the pool read together, one sequential stream each: the
    /// best of a few passes.
    pub fn read(&self) -> f64 {
        let share = self.floats.len().div_ceil(crate::pool::threads());
        let dot = crate::active().dot;
        let pass = || {
            let start = Instant::now();
            // A short vector against itself would stay in the cache; a dot with its own slice reads
            // every byte once.
            let total: f32 = self
                .floats
                .par_chunks(share)
                .map(|part| part.chunks(4096).map(|c| dot(c, c)).sum::<f32>())
                .sum();
            black_box(total);
            start.elapsed()
        };
        let best = (0..5).map(|_| pass()).min().unwrap_or(Duration::MAX);
        BYTES as f64 / best.as_secs_f64()
    }
}
