//! Ranks that are threads of one process: for tests, which need no launcher.

use crate::engine::Engine;
use crate::ranks::Ranks;
use std::any::Any;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

/// What a rank shows the others in one call.
type Post = Arc<dyn Any + Send + Sync>;

/// The place where the ranks meet.
#[derive(Default)]
struct Meeting {
    round: Mutex<Round>,
    turned: Condvar,
}

#[derive(Default)]
struct Round {
    posts: Vec<Option<Post>>,
    done: Arc<Vec<Post>>, // those of the last round
    number: u64,
    broken: bool, // a rank is gone
}

/// One of the threads.
struct Thread {
    rank: usize,
    size: usize,
    meeting: Arc<Meeting>,
}

/// So many ranks, each for a thread of its own. A rank that is dropped while its thread panics makes the
/// others panic too.
pub fn threads(size: usize) -> Vec<Ranks> {
    let meeting = Arc::new(Meeting::default());
    meeting.round.lock().unwrap_or_else(PoisonError::into_inner).posts.resize(size, None);
    let thread = |rank| Ranks::new(Box::new(Thread { rank, size, meeting: meeting.clone() }));
    (0..size).map(thread).collect()
}

impl std::fmt::Debug for Thread {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "thread {} of {}", self.rank, self.size)
    }
}

impl Thread {
    /// Waits for all ranks, and returns what each has posted.
    fn meet<T: Send + Sync + 'static>(&self, post: T) -> Vec<Arc<T>> {
        let mut round = self.meeting.round.lock().unwrap_or_else(PoisonError::into_inner);
        let number = round.number;
        round.posts[self.rank] = Some(Arc::new(post));
        if round.posts.iter().all(Option::is_some) {
            let posts = round.posts.iter_mut().filter_map(Option::take).collect();
            (round.done, round.number) = (Arc::new(posts), number + 1);
            self.meeting.turned.notify_all();
        }
        while round.number == number {
            assert!(!round.broken, "another rank is gone");
            round = self.meeting.turned.wait(round).unwrap_or_else(PoisonError::into_inner);
        }
        let posts = round.done.clone();
        drop(round);
        posts.iter().map(|post| post.clone().downcast().expect("all ranks make the same calls")).collect()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if thread::panicking() {
            self.meeting.round.lock().unwrap_or_else(PoisonError::into_inner).broken = true;
            self.meeting.turned.notify_all();
        }
    }
}

impl Engine for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_to_all(&mut self, send: &[f32], to: &[Range<usize>], received: &mut [f32]) {
        let parts: Vec<Vec<f32>> = to.iter().map(|range| send[range.clone()].to_vec()).collect();
        let own = to[self.rank].len();
        for (rank, sent) in self.meet(parts).iter().enumerate() {
            received[rank * own..][..own].copy_from_slice(&sent[self.rank]);
        }
    }

    fn all_gather(&mut self, values: &mut [f32], from: &[Range<usize>]) {
        let own = values[from[self.rank].clone()].to_vec();
        for (range, given) in from.iter().zip(self.meet(own)) {
            values[range.clone()].copy_from_slice(&given);
        }
    }

    fn broadcast(&mut self, root: usize, values: &mut [f32]) {
        let post = if self.rank == root { values.to_vec() } else { Vec::new() };
        values.copy_from_slice(&self.meet(post)[root]);
    }

    fn gather(&mut self, values: &[f64], all: &mut [f64]) {
        let posts = self.meet(values.to_vec());
        for (all, values) in all.chunks_mut(values.len().max(1)).zip(&posts) {
            all.copy_from_slice(values);
        }
    }

    fn abort(&self, code: i32) -> ! {
        panic!("aborted with code {code}");
    }

    fn name(&self) -> String {
        "threads of one process".to_owned()
    }
}
