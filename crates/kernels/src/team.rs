//! The engine's threads: they begin a product together within a microsecond, and sleep when nothing comes.
//!
//! Decoding is hundreds of short products a token. Threads that have just worked wait for the next
//! product awake, for at most 0.4 ms; after that they sleep until they are called.
#![allow(unsafe_code, reason = "the work of a call is borrowed by threads that outlive it")]

use crate::pool;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{Thread, available_parallelism};
use std::time::{Duration, Instant};

/// How long a thread that has worked waits awake.
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
    task: Mutex<Task>,
    /// Threads still at it.
    pending: AtomicUsize,
    members: OnceLock<Vec<Member>>,
}

struct Task {
    /// The newest call's work; valid until `pending` is 0.
    work: Option<&'static Work<'static>>,
    /// What a thread other than the caller panicked with.
    panic: Option<Box<dyn Any + Send>>,
}

struct Member {
    asleep: AtomicBool,
    thread: Thread,
}

/// Bits of `Team::call` that hold a number of threads.
const THREADS: u64 = 0xffff;

static TEAM: Team = Team {
    lead: Mutex::new(()),
    call: AtomicU64::new(0),
    task: Mutex::new(Task { work: None, panic: None }),
    pending: AtomicUsize::new(0),
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
    // Who asks for one thread does not settle how many there are.
    let threads = if threads > 1 { threads.min(pool::threads()) } else { 1 };
    let lead = if threads > 1 { TEAM.lead() } else { None };
    match lead {
        Some(_lead) => TEAM.run(threads, work),
        None => work(0),
    }
}

/// Hands `items` out to up to `threads` threads, each as it has time, and returns when all are done.
///
/// # Panics
/// If `work` does.
pub fn share<I>(threads: usize, items: I, work: impl Fn(I::Item) + Sync)
where
    I: Iterator + Send,
{
    let items = Mutex::new(items);
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    together(threads, &|_| {
        while let Some(item) = next() {
            work(item);
        }
    });
}

impl Team {
    /// Unless another call has it.
    fn lead(&self) -> Option<MutexGuard<'_, ()>> {
        match self.lead.try_lock() {
            Ok(lead) => Some(lead),
            // A call that panicked left nothing behind that the next one needs.
            Err(TryLockError::Poisoned(lead)) => Some(lead.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn task(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&'static self, threads: usize, work: &Work<'_>) {
        let members = self.members();
        let others = (threads - 1).min(members.len());
        // SAFETY: only the lifetime changes. The reference is gone before this function returns or
        // unwinds: `Done` waits until no thread holds it.
        let work_of_all = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        *self.task() = Task { work: Some(work_of_all), panic: None };
        self.pending.store(others, Ordering::Relaxed);
        let call = (self.call.load(Ordering::Relaxed) | THREADS) + 1 + others as u64;
        let done = Done(self);
        self.call.store(call, Ordering::SeqCst);
        for member in &members[..others] {
            // A member says that it sleeps before it looks at `call` for the last time.
            if member.asleep.load(Ordering::SeqCst) {
                member.thread.unpark();
            }
        }
        work(0);
        drop(done);
        let panic = self.task().panic.take();
        if let Some(panic) = panic {
            resume_unwind(panic)
        }
    }

    /// All threads but the caller's, started by the first call; fewer, if the system gives no more.
    fn members(&'static self) -> &'static [Member] {
        self.members.get_or_init(|| {
            let start = |index: usize| {
                let named = std::thread::Builder::new().name(format!("offramp-{}", index + 1));
                let thread = named.spawn(move || self.serve(index)).ok()?.thread().clone();
                Some(Member { asleep: AtomicBool::new(false), thread })
            };
            (0..(pool::threads() - 1).min(THREADS as usize)).map_while(start).collect()
        })
    }

    /// What thread `index + 1` does for the rest of the process.
    fn serve(&self, index: usize) {
        let member = &self.members.wait()[index];
        // Where there are fewer processors than threads, waiting awake would keep others from work.
        let enough = available_parallelism().is_ok_and(|processors| pool::threads() <= processors.get());
        let awake = if enough { AWAKE } else { Duration::ZERO };
        let (mut seen, mut until) = (0, Instant::now() + awake);
        loop {
            seen = self.wait(member, seen, until);
            if (seen & THREADS) as usize <= index {
                continue; // the call wants fewer
            }
            let work = self.task().work;
            let done = catch_unwind(AssertUnwindSafe(|| work.into_iter().for_each(|work| work(index + 1))));
            if let Err(panic) = done {
                self.task().panic = Some(panic);
            }
            self.pending.fetch_sub(1, Ordering::Release);
            until = Instant::now() + awake;
        }
    }

    /// Waits for a call after `seen`, awake at first and then asleep.
    fn wait(&self, member: &Member, seen: u64, until: Instant) -> u64 {
        let news = || Some(self.call.load(Ordering::SeqCst)).filter(|&call| call != seen);
        loop {
            for _ in 0..ATTEMPTS {
                if let Some(call) = news() {
                    return call;
                }
                std::hint::spin_loop();
            }
            if Instant::now() >= until {
                break;
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
        self.0.task().work = None;
    }
}
