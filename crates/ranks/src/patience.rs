//! Waiting for other processes without taking the core from what computes beside it.

use std::thread;
use std::time::{Duration, Instant};

/// For so long a wait only gives way; most end within it.
const BRISK: Duration = Duration::from_micros(200);
/// Then it sleeps so long between two looks. MPI's messages go on when it is called: a longer pause would slow
/// those that do not fit what the network holds.
const PAUSE: Duration = Duration::from_micros(50);

/// Looks until something is done.
pub(crate) fn wait(mut is_done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_done() {
        match began.elapsed() < BRISK {
            true => thread::yield_now(),
            false => thread::sleep(PAUSE),
        }
    }
}
