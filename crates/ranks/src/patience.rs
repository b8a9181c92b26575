//! Waiting for other processes. MPI's messages go on when it is called, many times for each: every pause
//! makes an exchange longer. So a wait only gives way, unless this process computes beside it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A process that computes waits so long without a pause, and one that does not.
const BRISK: [Duration; 2] = [Duration::from_micros(200), Duration::from_secs(1)];
/// A pause between two looks.
const PAUSE: Duration = Duration::from_micros(50);

/// Whether this process computes beside its exchange.
static COMPUTES: AtomicBool = AtomicBool::new(false);

/// Says whether this process computes while one of its threads exchanges, and so needs its cores.
pub fn computes_beside(computes: bool) {
    COMPUTES.store(computes, Ordering::Relaxed);
}

/// Looks until something is done.
pub(crate) fn wait(mut is_done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_done() {
        let [beside, alone] = BRISK;
        let brisk = if COMPUTES.load(Ordering::Relaxed) { beside } else { alone };
        match began.elapsed() < brisk {
            true => thread::yield_now(),
            false => thread::sleep(PAUSE),
        }
    }
}
