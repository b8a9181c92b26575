//! The last micro-batch of a step, whose gradients go to the other ranks while it is still computed.

use super::trainer::Trainer;
use crate::error::Result;
use crate::network::{Batch, Part, Parts};
use crate::ops::values;
use crate::profile::{Op, Pass};
use offramp_ranks::{Ranks, computes_beside};
use offramp_text::Batches;
use std::panic;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

impl Trainer {
    /// Computes a rank's last micro-batch, and returns the loss of each exit. Leaves in this rank's shares
    /// the gradient of all.
    ///
    /// A bucket is folded and goes out as soon as the backward has left it. A thread of its own exchanges
    /// them in the order in which they come, which is the same on all ranks.
    pub(super) fn last_micro_batch(
        &mut self,
        index: u64,
        batches: &mut Batches<'_>,
        is_first: bool,
        ranks: &mut Ranks,
    ) -> Result<Vec<f64>> {
        self.begin(index, batches, is_first)?;
        let Self { network, plan, rounding, weights, gradients, fold, buckets, inputs, labels, .. } = self;
        let batch = Batch { inputs, labels };
        let (weights, buckets, mut seen) = (rounding.rounded(weights), &*buckets, Duration::ZERO);
        let losses = thread::scope(|scope| {
            let (send, receive) = mpsc::channel::<Part<'_>>();
            let exchange = scope.spawn(move || {
                for part in receive {
                    let bucket = &buckets[part.index];
                    ranks.reduce_scatter(part.values, &bucket.within(&bucket.range));
                }
            });
            let ranges = buckets.iter().map(|bucket| bucket.range.clone());
            computes_beside(true);
            let losses = network.loss_and_parts(
                weights,
                batch,
                plan,
                Parts::new(gradients, ranges, &mut |part| {
                    let began = Instant::now();
                    fold.finish(part.values, part.start, values::add);
                    seen += began.elapsed();
                    let _ = send.send(part); // only a panic of the thread ends it before
                }),
            );
            computes_beside(false);
            drop(send);
            let began = Instant::now();
            exchange.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
            seen += began.elapsed();
            losses
        });
        fold.clear();
        network.clock().add(Op::Ranks, Pass::Forward, 0.0, seen);
        Ok(losses)
    }
}
