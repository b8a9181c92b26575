//! The engine's threads: they begin a product together within a microsecond, and sleep when nothing comes.
//!
//! Decoding is hundreds of short products a token. Threads that have just worked wait for the next
//! product awake, for at most 0.4 ms; after that they sleep until they are called.
//!
//! A call waits for nobody who has not come: the calling thread takes what is left of the work, closes the
//! call, and waits for those alone that still have a part of it in hand. Beside other work on the processors
//! a thread that waits awake lets that run; whoever lost its processor is not asked for a while
//! (`team/rest.rs`).
#![allow(unsafe_code, reason = "the work of a call is borrowed by threads that outlive it")]

mod rest;
mod seat;

use crate::pool;
use rest::Rest;
use seat::Seat;
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::thread::{Thread, available_parallelism, yield_now};
use std::time::Instant;

/// How long a thread that has worked waits awake, in nanoseconds.
const AWAKE: u64 = 400_000;
/// Attempts between two looks at the clock, each some tens of nanoseconds.
const ATTEMPTS: usize = 64;
/// Looks of a thread that waits between two offers of its processor to others, and as many attempts of a call
/// that waits between two looks: some 25 microseconds, which is longer than most waits.
const PATIENCE: usize = 16;
/// Who sees nothing of so many nanoseconds had no processor: what the system does for itself is shorter.
const GONE: u64 = 100_000;

/// What a call asks of every thread: called with the thread's number.
type Work<'a> = dyn Fn(usize) + Sync + 'a;

struct Team {
    /// Held by the call at work.
    lead: Mutex<()>,
    /// What a thread other than the caller panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    members: OnceLock<Members>,
}

struct Members {
    /// When the team began.
    start: Instant,
    /// Whether there are more threads than processors.
    crowded: bool,
    all: Vec<Member>,
}

/// In cache lines of its own, which one transfer brings to the thread.
#[repr(align(128))]
struct Member {
    seat: Seat,
    /// The work of the call that asked last; valid while the seat is taken.
    work: UnsafeCell<Option<&'static Work<'static>>>,
    rest: Rest,
    thread: Thread,
}

// SAFETY: `work` alone is not `Sync`. A call writes it while the seat is not taken, before it asks; the
// thread reads it after it has taken the seat, which only the call that asked gives it; and one call is at
// work at a time.
unsafe impl Sync for Member {}

static TEAM: Team = Team { lead: Mutex::new(()), panic: Mutex::new(None), members: OnceLock::new() };

/// Calls `work` on the calling thread, which is number 0, and on up to `threads - 1` others, each at most
/// once; returns when all who were called have done.
///
/// `work` must share itself out (see [`Claims`](crate::Claims)) and be done when one thread has seen no more
/// of it: others come as they have time, and may not come at all. When another call is at work, or this one
/// comes from inside it, the calling thread does everything alone.
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

    fn panic(&self) -> MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&'static self, threads: usize, work: &Work<'_>) {
        let members = self.members();
        let others = &members.all[..(threads - 1).min(members.all.len())];
        // SAFETY: only the lifetime changes. Nobody holds the reference when this function returns: it does
        // not unwind before `close` has waited for all who do.
        let work_of_all = unsafe { std::mem::transmute::<&Work<'_>, &'static Work<'static>>(work) };
        let begun = members.now();
        for member in others.iter().filter(|member| member.rest.is_over(begun)) {
            // SAFETY: this call has the lead, and the one before it has waited until the seat was left.
            unsafe { *member.work.get() = Some(work_of_all) };
            if member.seat.ask() {
                member.thread.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        members.close(others, begun);
        let of_others = self.panic().take();
        if let Some(panic) = own.err().or(of_others) {
            resume_unwind(panic)
        }
    }

    /// All threads but the caller's, started by the first call; fewer, if the system gives no more.
    fn members(&'static self) -> &'static Members {
        self.members.get_or_init(|| {
            let start = |index: usize| {
                let named = std::thread::Builder::new().name(format!("offramp-{}", index + 1));
                let thread = named.spawn(move || self.serve(index)).ok()?.thread().clone();
                let (seat, work) = (Seat::new(), UnsafeCell::new(None));
                Some(Member { seat, work, rest: Rest::default(), thread })
            };
            let threads = pool::threads();
            let enough = available_parallelism().is_ok_and(|processors| threads <= processors.get());
            let all = (0..threads - 1).map_while(start).collect();
            Members { start: Instant::now(), crowded: !enough, all }
        })
    }

    /// What thread `index + 1` does for the rest of the process.
    fn serve(&self, index: usize) {
        let members = self.members.wait();
        let member = &members.all[index];
        loop {
            member.wait(members);
            // SAFETY: the seat is taken: its call has written this, and waits until it is left.
            let work = unsafe { *member.work.get() };
            let done = catch_unwind(AssertUnwindSafe(|| work.into_iter().for_each(|work| work(index + 1))));
            if let Err(panic) = done {
                *self.panic() = Some(panic);
            }
            member.seat.leave();
        }
    }
}

impl Members {
    /// Nanoseconds since the team began.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Ends a call: nobody comes any more, and who has come is waited for.
    fn close(&self, others: &[Member], begun: u64) {
        for member in others {
            member.seat.withdraw();
        }
        for member in others {
            self.wait_for(member, begun);
        }
    }

    /// Who comes back later than the whole call took without it had no processor: the call would have been
    /// done sooner alone.
    fn wait_for(&self, member: &Member, begun: u64) {
        let (mut closed, mut attempts) = (None, 0);
        while member.seat.is_at_work() {
            attempts += 1;
            if attempts % (PATIENCE * ATTEMPTS) != 0 {
                std::hint::spin_loop();
                continue;
            }
            let now = self.now();
            let closed = *closed.get_or_insert(now);
            if self.crowded || now - closed > closed - begun {
                yield_now();
            }
        }
        let Some(closed) = closed else { return };
        let now = self.now();
        if now - closed > (closed - begun).max(GONE) {
            member.rest.begin(now, now - closed);
        }
    }
}

impl Member {
    /// Waits until the thread is asked, awake at first and then asleep, and takes its seat.
    fn wait(&self, members: &Members) {
        while !self.wait_awake(members) {
            if self.seat.sleep() {
                while self.seat.is_asleep() {
                    std::thread::park();
                }
            }
        }
    }

    /// Whether a call came; none does if that takes long, or something else has the processor.
    fn wait_awake(&self, members: &Members) -> bool {
        let (mut looked, mut looks) = (members.now(), 0);
        let until = looked + if members.crowded { 0 } else { AWAKE };
        loop {
            for _ in 0..ATTEMPTS {
                if self.seat.take() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = members.now();
            if now - looked > GONE {
                self.rest.begin(now, now - looked);
                return self.seat.take();
            }
            if now >= until {
                return false;
            }
            (looked, looks) = (now, looks + 1);
            if looks % PATIENCE == 0 {
                // Back at once where nothing else waits for this processor.
                yield_now();
            }
        }
    }
}
