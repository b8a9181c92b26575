//! Where a step's time goes: seconds and floating-point operations of every op, there and back.
//!
//! Counted is what the definition asks for: two operations for every weight and token on the way there,
//! four on the way back, and in attention only what the causal mask leaves. Work that is done twice (the
//! scores of attention, norms) takes its time and is not counted again.

use serde::Serialize;
use std::cell::Cell;
use std::time::Instant;

/// What time is spent on.
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
    /// Turning heads by their positions, and their order in memory.
    Heads,
    /// Softmax over what came before.
    Attention,
    /// From heads to the stream.
    OProj,
    /// Into the feed-forward network.
    GateUpProj,
    /// Its gate.
    Swiglu,
    /// Out of it.
    DownProj,
    /// Rounding what ternary matrices multiply, and the rotation before.
    Quantise,
    /// Adding to the stream, and taking samples out of it and in again.
    Residual,
    /// The final norm and the LM head, at every active exit.
    LmHead,
    /// Softmax over the vocabulary, at every active exit.
    CrossEntropy,
    /// The gradient's norm and the update.
    AdamW,
}

impl Op {
    const ALL: [Self; 15] = [
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
        Self::Quantise,
        Self::Residual,
        Self::LmHead,
        Self::CrossEntropy,
        Self::AdamW,
    ];
}

/// There, or back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Forward,
    Backward,
}

/// What one op has taken.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct OpTime {
    /// Which.
    pub op: Op,
    /// Seconds on the way there; of an update, all.
    pub forward_seconds: f64,
    /// Seconds on the way back.
    pub backward_seconds: f64,
    /// Operations of products, of both ways.
    pub flops: f64,
}

/// Where the time of some steps went.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// Steps that were timed: all of a process but the first, if there were others.
    pub steps: u64,
    /// What they took, from the batch to the new weights.
    pub seconds: f64,
    /// What of it each op took.
    pub ops: Vec<OpTime>,
}

/// Adds up what ops take.
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
    pub(crate) fn time<T>(&self, op: Op, way: Way, flops: f64, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let result = work();
        let seconds = began.elapsed().as_secs_f64();
        let cell = &self.times[op as usize];
        let mut time = cell.get();
        match way {
            Way::Forward => time.forward_seconds += seconds,
            Way::Backward => time.backward_seconds += seconds,
        }
        time.flops += flops;
        cell.set(time);
        result
    }

    /// What each op has taken so far.
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
    fn every_op_has_its_place_and_times_add_up() {
        let clock = Clock::new();
        for (index, op) in Op::ALL.into_iter().enumerate() {
            assert_eq!(clock.times()[index].op, op);
            assert_eq!(op as usize, index);
        }
        let pause = || std::thread::sleep(std::time::Duration::from_millis(2));
        clock.time(Op::Heads, Way::Forward, product(2, 3, 4), pause);
        clock.time(Op::Heads, Way::Backward, product(1, 1, 1), pause);
        let time = clock.times()[Op::Heads as usize];
        assert!(time.forward_seconds >= 0.002 && time.backward_seconds >= 0.002 && time.flops == 50.0);
        assert_eq!(clock.times()[0].forward_seconds, 0.0);
    }
}
