//! The engine's threads: they begin a product together within a microsecond, and sleep when nothing comes.
//!
//! Decoding is hundreds of short products a token. Threads that have just worked wait for the next
//! product awake, for at most [`AWAKE`]; after that they sleep until they are called.
#![allow(unsafe_code, reason = "the work of a call is borrowed by threads that outlive it")]

use crate::pool;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a thread waits awake.
const AWAKE: Duration = Duration::from_micros(400);
/// Attempts between two looks at the clock, each some tens of nanoseconds.
const ATTEMPTS: usize = 64;

/// What a call asks of every thread: called with the thread's number.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

struct Team {
    /// Held by the call at work.
    lead: Mutex<()>,
    /// Counts the calls in its upper bits; below them stands the number of threads of the newest.
    call: AtomicU64,
    /// The newest call's work; valid until `pending` is 0.
    work: Mutex<Option<&'static Work<'static>>>,
    /// Threads still at it.
    pending: AtomicUsize,
    panicked: AtomicBool,
    members: OnceLock<Vec<Member>>,
}

struct Member {
    asleep: AtomicBool,
    thread: OnceLock<Thread>,
}

/// Bits of `Team::call` that hold a number of threads.
const THREADS: u64 = 0xffff;

static TEAM: Team = Team {
    lead: Mutex::new(()),
    call: AtomicU64::new(0),
    work: Mutex::new(None),
    pending: AtomicUsize::new(0),
    panicked: AtomicBool::new(false),
    members: OnceLock::new(),
};

/// Calls `work` on `threads` threads, or on as many as there are, and returns when all have done; the
/// calling thread is number 0.
///
/// `work` must share itself out (see [`Claims`](crate::Claims)): when another call is at work, or
/// this one comes from inside it, the calling thread does everything alone.
///
/// # Panics
/// If `work` does.
pub fn together(threads: usize, work: &Work<'_>) {
    let threads = threads.min(pool::threads());
    let lead = if threads > 1 { TEAM.lead.try_lock().ok() } else { None };
    match lead {
        Some(_lead) => TEAM.run(threads, work),
        None => work(0),
    }
}

impl Team {
    fn run(&'static self, threads: usize, work: &Work<'_>) {
        let members = self.members();
        let others = (threads - 1).min(members.len());
        // SAFETY: only the lifetime changes. The reference is gone before this function returns or
        // unwinds: `Done` waits until no thread holds it.
        let work_of_all = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work_of_all);
        self.pending.store(others, Ordering::Relaxed);
        let call = (self.call.load(Ordering::Relaxed) | THREADS) + 1 + others as u64;
        let done = Done(self);
        self.call.store(call, Ordering::SeqCst);
        for member in &members[..others] {
            // A member says that it sleeps before it looks at `call` for the last time.
            if member.asleep.load(Ordering::SeqCst)
                && let Some(thread) = member.thread.get()
            {
                thread.unpark();
            }
        }
        work(0);
        drop(done);
        if self.panicked.swap(false, Ordering::Relaxed) {
            panic!("a thread of the team panicked: its message stands above");
        }
    }

    /// All threads but the caller's, started by the first call.
    fn members(&'static self) -> &'static [Member] {
        self.members.get_or_init(|| {
            let member = |_| Member { asleep: AtomicBool::new(false), thread: OnceLock::new() };
            let others = (pool::threads() - 1).min(THREADS as usize);
            (0..others).map(member).collect()
        });
        let members = self.members.get().expect("set above");
        for (index, member) in members.iter().enumerate() {
            member.thread.get_or_init(|| {
                let named = std::thread::Builder::new().name(format!("offramp-{}", index + 1));
                let thread =
                    named.spawn(move || self.serve(index)).expect("the pool has its threads already");
                thread.thread().clone()
            });
        }
        members
    }

    /// What thread `index + 1` does for the rest of the process.
    fn serve(&self, index: usize) {
        let mut seen = 0;
        loop {
            seen = self.wait(index, seen);
            if (seen & THREADS) as usize <= index {
                continue; // the call wants fewer
            }
            let work = *self.work.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(work) = work
                && catch_unwind(AssertUnwindSafe(|| work(index + 1))).is_err()
            {
                self.panicked.store(true, Ordering::Relaxed);
            }
            self.pending.fetch_sub(1, Ordering::Release);
        }
    }

    /// Waits for a call after `seen`, awake at first and then asleep.
    fn wait(&self, index: usize, seen: u64) -> u64 {
        let member = &self.members.get().expect("a member runs")[index];
        let news = || Some(self.call.load(Ordering::SeqCst)).filter(|&call| call != seen);
        let since = Instant::now();
        while since.elapsed() < AWAKE {
            for _ in 0..ATTEMPTS {
                if let Some(call) = news() {
                    return call;
                }
                std::hint::spin_loop();
            }
        }
        member.asleep.store(true, Ordering::SeqCst);
        let call = loop {
            match news() {
                Some(call) => break call,
                None => std::thread::park(),
            }
        };
        member.asleep.store(false, Ordering::SeqCst);
        call
    }
}

/// Waits, when dropped, until no other thread is at work.
struct Done<'a>(&'a Team);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut attempts = 0;
        while self.0.pending.load(Ordering::Acquire) > 0 {
            attempts += 1;
            // Where there are fewer processors than threads, one of them waits for this one.
            if attempts % (16 * ATTEMPTS) == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        *self.0.work.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_thread_is_called_once_and_all_are_waited_for() {
        pool::set_threads(3).expect("the first call of this process, or the same number");
        for round in 0..2000 {
            let called = [const { AtomicUsize::new(0) }; 3];
            let threads = 1 + round % 3;
            together(threads, &|thread| {
                called[thread].fetch_add(1, Ordering::Relaxed);
            });
            let total: usize = called.iter().map(|c| c.load(Ordering::Relaxed)).sum();
            // Another test's call may be at work, and then this thread is alone.
            assert!(total == threads || total == 1, "{total} of {threads}");
            if round % 500 == 0 {
                std::thread::sleep(2 * AWAKE); // so that they are called from sleep too
            }
        }
    }

    #[test]
    fn a_call_within_a_call_is_done_by_its_thread() {
        let called = AtomicUsize::new(0);
        together(2, &|_| together(2, &|_| drop(called.fetch_add(1, Ordering::Relaxed))));
        assert!((1..=2).contains(&called.load(Ordering::Relaxed)));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_team_lives_on() {
        let caught = catch_unwind(|| together(2, &|thread| assert_eq!(thread, 2, "all of them fail")));
        assert!(caught.is_err());
        let called = AtomicUsize::new(0);
        together(2, &|_| drop(called.fetch_add(1, Ordering::Relaxed)));
        assert!(called.load(Ordering::Relaxed) >= 1);
    }
}
