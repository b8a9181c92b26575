//! One process of a run: sums by the fixed tree, copies, and the end of all.

use crate::alone::Alone;
use crate::engine::Engine;
use crate::error::Result;
use crate::fold::tree;
use crate::launch;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The part of a buffer that a rank owns. The parts of all ranks follow each other and are the whole.
pub type Share = Range<usize>;

/// Values that a rank sends at most in one exchange, to all others together: 32 MiB. One exchange waits once
/// for the network, however long its way is.
const EXCHANGE: usize = 1 << 23;

/// One process of a run.
#[derive(Debug)]
pub struct Ranks {
    engine: Box<dyn Engine>,
    received: Vec<f32>, // [size, piece]
    bucket: usize,
    watch: Watch,
}

/// Bytes of gradients that go out together: as many as PyTorch's DDP has by default.
const BUCKET: usize = 25 << 20;

/// Tells another thread for how long a rank has waited for the others.
#[derive(Clone, Debug)]
pub struct Watch(Arc<Mutex<Option<Instant>>>);

impl Watch {
    /// How long the present exchange has lasted; none between two.
    pub fn waiting(&self) -> Option<Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|began| began.elapsed())
    }

    fn set(&self, began: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }
}

impl Ranks {
    /// A process alone.
    pub fn alone() -> Self {
        Self::new(Box::new(Alone))
    }

    /// A process that an engine connects to others.
    pub fn new(engine: Box<dyn Engine>) -> Self {
        Self { engine, received: Vec::new(), bucket: BUCKET, watch: Watch(Arc::default()) }
    }

    /// This process: one of several where `mpirun` or `srun` started it, else alone.
    ///
    /// # Errors
    /// If it was started as one of several, and there is no MPI library.
    pub fn of_launcher() -> Result<Self> {
        launch::engine().map(Self::new)
    }

    /// The same, where gradients go out as soon as there are so many bytes of them.
    #[must_use]
    pub fn with_bucket(self, bytes: usize) -> Self {
        Self { bucket: bytes, ..self }
    }

    /// Bytes of gradients that go out together.
    pub fn bucket(&self) -> usize {
        self.bucket
    }

    /// Which process this is, from 0.
    pub fn rank(&self) -> usize {
        self.engine.rank()
    }

    /// How many there are.
    pub fn size(&self) -> usize {
        self.engine.size()
    }

    /// Whether this is the first, which owns the files.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// The library and its version, in one line.
    pub fn name(&self) -> String {
        self.engine.name()
    }

    /// What another thread may look at.
    pub fn watch(&self) -> Watch {
        self.watch.clone()
    }

    /// Makes one exchange, watched.
    fn exchange(&mut self, work: impl FnOnce(&mut dyn Engine, &mut Vec<f32>)) {
        self.watch.set(Some(Instant::now()));
        work(&mut *self.engine, &mut self.received);
        self.watch.set(None);
    }

    /// Leaves in each rank's own share the sum over all ranks; the rest of `values` keeps what this rank put
    /// there.
    ///
    /// # Panics
    /// If there are not as many shares as ranks.
    pub fn reduce_scatter(&mut self, values: &mut [f32], shares: &[Share]) {
        let (rank, size) = (self.rank(), self.size());
        assert_eq!(shares.len(), size, "a share for each rank");
        if size == 1 {
            return;
        }
        for to in pieces(shares) {
            let own = to[rank].clone();
            self.received.resize(size * own.len(), 0.0);
            self.exchange(|engine, received| engine.all_to_all(values, &to, received));
            tree(&mut self.received, own.len());
            let sum = &self.received[..own.len()];
            values[own].copy_from_slice(sum);
        }
    }

    /// Gives every rank the share of each from its owner.
    ///
    /// # Panics
    /// If there are not as many shares as ranks.
    pub fn all_gather(&mut self, values: &mut [f32], shares: &[Share]) {
        assert_eq!(shares.len(), self.size(), "a share for each rank");
        if self.size() == 1 {
            return;
        }
        for from in pieces(shares) {
            self.exchange(|engine, _| engine.all_gather(values, &from));
        }
    }

    /// Gives every rank the values of the first.
    pub fn broadcast(&mut self, values: &mut [f32]) {
        if self.size() > 1 {
            self.exchange(|engine, _| engine.broadcast(0, values));
        }
    }

    /// Leaves the sums over all ranks, by the same tree.
    pub fn sum(&mut self, values: &mut [f64]) {
        let mut all = self.gather(values);
        tree(&mut all, values.len());
        values.copy_from_slice(&all[..values.len()]);
    }

    /// The values of all ranks, in their order.
    ///
    /// # Shapes
    /// result: `[size, values.len()]`
    pub fn gather(&mut self, values: &[f64]) -> Vec<f64> {
        let mut all = vec![0.0; self.size() * values.len()];
        self.exchange(|engine, _| engine.gather(values, &mut all));
        all
    }

    /// Ends all processes of the run. What this one has to say it says before.
    pub fn abort(&self, code: i32) -> ! {
        self.engine.abort(code)
    }
}

/// The shares in pieces, one of each share at a time: what one exchange carries.
fn pieces(shares: &[Share]) -> impl Iterator<Item = Vec<Share>> {
    let piece = (EXCHANGE / shares.len().max(1)).max(1);
    let longest = shares.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
    (0..longest).step_by(piece).map(move |start| {
        let at = |share: &Share, offset: usize| share.start.saturating_add(offset).min(share.end);
        shares.iter().map(|share| at(share, start)..at(share, start + piece)).collect()
    })
}
