//! Where a step's time goes: seconds and floating-point operations of every op, forward and backward.
//!
//! Operations are counted by the definition: for every weight and token two in the forward and four in the
//! backward, and in attention only what the causal mask leaves. Work that is done twice (the scores of
//! attention, norms) takes time twice and is counted once.

use serde::Serialize;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// A piece of a step that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Reading the batch.
    Batch,
    /// Looking tokens up.
    Embedding,
    /// All norms but the head's.
    Norms,
    /// Queries, keys and values.
    QkvProj,
    /// Rotating heads by their positions, and their order in memory.
    Heads,
    /// Softmax over the positions so far.
    Attention,
    /// From heads to the stream.
    OProj,
    /// Into the feed-forward network.
    GateUpProj,
    /// The gate of the feed-forward network.
    Swiglu,
    /// Out of the feed-forward network.
    DownProj,
    /// Rounding the factors of ternary products, and the Hadamard rotation before.
    Quantize,
    /// Adding to the stream, and gathering and scattering samples.
    Residual,
    /// The final norm and the LM head, at every active exit.
    LmHead,
    /// Softmax over the vocabulary, at every active exit.
    CrossEntropy,
    /// The gradient's norm and the update.
    AdamW,
    /// Folding the gradients of micro-batches, and waiting for gradients and weights of other ranks. What is
    /// exchanged while the backward goes on is not counted.
    Ranks,
}

impl Op {
    const ALL: [Self; 16] = [
        Self::Batch,
        Self::Embedding,
        Self::Norms,
        Self::QkvProj,
        Self::Heads,
        Self::Attention,
        Self::OProj,
        Self::GateUpProj,
        Self::Swiglu,
        Self::DownProj,
        Self::Quantize,
        Self::Residual,
        Self::LmHead,
        Self::CrossEntropy,
        Self::AdamW,
        Self::Ranks,
    ];
}

/// Forward or backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pass {
    Forward,
    Backward,
}

/// The time of one op.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OpTime {
    /// Which op.
    pub op: Op,
    /// Seconds of the forward; of an update, all.
    pub forward_seconds: f64,
    /// Seconds of the backward.
    pub backward_seconds: f64,
    /// Operations of products, forward and backward.
    pub flops: f64,
}

/// Where the time of some steps went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Steps that were timed: all of a process but the first, if there were others.
    pub steps: u64,
    /// Their seconds, from the batch to the new weights.
    pub seconds: f64,
    /// The time of each op.
    pub ops: Vec<OpTime>,
}

/// Adds up the time of each op.
#[derive(Clone, Debug)]
pub(crate) struct Clock {
    times: [Cell<OpTime>; Op::ALL.len()],
}

impl Clock {
    pub(crate) fn new() -> Self {
        let none = |op| Cell::new(OpTime { op, forward_seconds: 0.0, backward_seconds: 0.0, flops: 0.0 });
        Self { times: Op::ALL.map(none) }
    }

    /// Runs `work`, whose products have so many operations.
    pub(crate) fn time<T>(&self, op: Op, pass: Pass, flops: f64, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        self.add(op, pass, flops, began.elapsed());
        result
    }

    /// Counts work that was timed elsewhere.
    pub(crate) fn add(&self, op: Op, pass: Pass, flops: f64, took: Duration) {
        let cell = &self.times[op as usize];
        let mut time = cell.get();
        match pass {
            Pass::Forward => time.forward_seconds += took.as_secs_f64(),
            Pass::Backward => time.backward_seconds += took.as_secs_f64(),
        }
        time.flops += flops;
        cell.set(time);
    }

    /// The time of each op so far.
    pub(crate) fn times(&self) -> Vec<OpTime> {
        self.times.iter().map(Cell::get).collect()
    }
}

/// Operations of `[rows, in_features] · [in_features, out_features]`.
pub(crate) fn product(rows: usize, in_features: usize, out_features: usize) -> f64 {
    2.0 * rows as f64 * in_features as f64 * out_features as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_add_up_for_each_op() {
        let clock = Clock::new();
        for (index, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(clock.times()[index].op, op);
            assert_eq!(op as usize, index);
        }
        let pause = || std::thread::sleep(std::time::Duration::from_millis(2));
        clock.time(Op::Heads, Pass::Forward, product(2, 3, 4), pause);
        clock.time(Op::Heads, Pass::Backward, product(1, 1, 1), pause);
        let time = clock.times()[Op::Heads as usize];
        assert!(time.forward_seconds >= 0.002 && time.backward_seconds >= 0.002 && time.flops == 50.0);
        assert_eq!(clock.times()[0].forward_seconds, 0.0);
    }
}
