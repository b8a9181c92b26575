//! MPI by the `mpi` crate, which is linked with the library whose `mpicc` the build found: for Open MPI 4 and
//! 5 and MPICH 4, which have no library with the standard ABI.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::patience;
use crate::places::{Places, int};
use mpi::datatype::{Partition, PartitionMut};
use mpi::environment::{self, Universe};
use mpi::request::{self, Request, Scope};
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use mpi::{Count, Threading};
use std::fmt;
use std::ops::Range;

/// Values of one broadcast.
const MAX_COUNT: usize = 1 << 28;

/// A process that MPI connects to others. A fault of the network ends all of them: MPI's own error handler
/// does that.
pub(crate) struct Linked {
    rank: usize,
    size: usize,
    own: Vec<f32>,       // what it gives, while all is gathered
    _universe: Universe, // its end is MPI's
}

impl fmt::Debug for Linked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rank {} of {} ({})", self.rank, self.size, name())
    }
}

impl Linked {
    /// Joins the other processes.
    pub(crate) fn start() -> Result<Self> {
        let failed = Error::Failed { function: "MPI_Init_thread", code: 1 };
        let (universe, level) =
            environment::initialize_with_threading(Threading::Serialized).ok_or(failed)?;
        if level < Threading::Serialized {
            return Err(Error::Threads { library: name() });
        }
        let world = world();
        let [rank, size] = [world.rank(), world.size()].map(|number| usize::try_from(number).unwrap_or(0));
        Ok(Self { rank, size, own: Vec::new(), _universe: universe })
    }
}

fn world() -> SimpleCommunicator {
    SimpleCommunicator::world()
}

/// The library and its version.
fn name() -> String {
    let text = environment::library_version().unwrap_or_default();
    text.lines().next().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Waits for an exchange that was begun.
fn finish<'a, D: ?Sized, S: Scope<'a>>(request: Request<'a, D, S>) {
    let mut request = Some(request);
    patience::wait(|| match request.take().map(Request::test) {
        Some(Err(unfinished)) => {
            request = Some(unfinished);
            false
        }
        Some(Ok(_)) | None => true,
    });
}

type Split<'a> = Partition<'a, [f32], Vec<Count>, Vec<Count>>;
type SplitMut<'a> = PartitionMut<'a, [f32], Vec<Count>, Vec<Count>>;

impl Engine for Linked {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_to_all(&mut self, send: &[f32], to: &[Range<usize>], received: &mut [f32]) {
        let own = to[self.rank].len();
        let packed: Vec<f32>;
        let (send, places) = match Places::of(to, self.size, send.len()) {
            Some(places) => (places.slice(send), places),
            None => {
                packed = to.iter().flat_map(|range| &send[range.clone()]).copied().collect();
                (&packed[..], Places::one_after_another(to))
            }
        };
        let come = Places::one_after_another(&vec![0..own; self.size]);
        let send: Split<'_> = Partition::new(send, places.counts, places.at);
        let received = &mut received[..self.size * own];
        let mut received: SplitMut<'_> = PartitionMut::new(received, come.counts, come.at);
        request::scope(|scope| {
            finish(world().immediate_all_to_all_varcount_into(scope, &send, &mut received));
        });
    }

    fn all_gather(&mut self, values: &mut [f32], from: &[Range<usize>]) {
        let Some(places) = Places::of(from, self.size, values.len()) else {
            return from.iter().enumerate().for_each(|(root, range)| {
                self.broadcast(root, &mut values[range.clone()]);
            });
        };
        self.own.clear();
        self.own.extend_from_slice(&values[from[self.rank].clone()]);
        let values = places.slice_mut(values);
        let mut values: SplitMut<'_> = PartitionMut::new(values, places.counts, places.at);
        request::scope(|scope| {
            finish(world().immediate_all_gather_varcount_into(scope, &self.own[..], &mut values));
        });
    }

    fn broadcast(&mut self, root: usize, values: &mut [f32]) {
        for piece in values.chunks_mut(MAX_COUNT) {
            let world = world();
            let root = world.process_at_rank(int(root));
            request::scope(|scope| finish(root.immediate_broadcast_into(scope, piece)));
        }
    }

    fn gather(&mut self, values: &[f64], all: &mut [f64]) {
        assert_eq!(all.len(), values.len() * self.size, "room for all");
        request::scope(|scope| finish(world().immediate_all_gather_into(scope, values, all)));
    }

    fn abort(&self, code: i32) -> ! {
        world().abort(code)
    }

    fn name(&self) -> String {
        name()
    }
}
