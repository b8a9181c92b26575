//! The engine's threads: all are called and waited for, a panic ends its call and no more.

use offramp_kernels::{pool, team::together};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Four threads, which one test has to itself: while a call is at work, another's is alone.
fn four_threads() -> MutexGuard<'static, ()> {
    static ONE_TEST: Mutex<()> = Mutex::new(());
    let alone = ONE_TEST.lock().unwrap_or_else(PoisonError::into_inner);
    pool::set_threads(4).expect("all tests of this process want as many");
    alone
}

/// How often each thread is called.
fn called(threads: usize) -> [usize; 5] {
    let called = [const { AtomicUsize::new(0) }; 5];
    together(threads, &|thread| {
        called[thread].fetch_add(1, Relaxed);
    });
    called.map(AtomicUsize::into_inner)
}

#[test]
fn every_thread_is_called_once_and_all_are_waited_for() {
    let _alone = four_threads();
    for round in 0..3000 {
        let threads = round % 7;
        let expected = std::array::from_fn(|thread| usize::from(thread < threads.clamp(1, 4)));
        assert_eq!(called(threads), expected, "round {round}");
        if round % 300 == 0 {
            std::thread::sleep(Duration::from_millis(1)); // so that they are called from sleep too
        } else if round % 100 == 0 {
            std::thread::sleep(Duration::from_micros(380)); // and as they fall asleep
        }
    }
}

#[test]
fn what_threads_write_is_there_afterwards() {
    let _alone = four_threads();
    for round in 0..500 {
        let mut parts = [[0usize; 16]; 4];
        let places = parts.each_mut().map(Mutex::new);
        together(4, &|thread| places[thread].lock().unwrap().fill(round + thread));
        for (thread, part) in parts.iter().enumerate() {
            assert_eq!(part, &[round + thread; 16]);
        }
    }
}

#[test]
fn a_call_within_a_call_is_done_by_its_thread() {
    let _alone = four_threads();
    let (outer, inner) = (AtomicUsize::new(0), AtomicUsize::new(0));
    together(4, &|_| {
        outer.fetch_add(1, Relaxed);
        let here = std::thread::current().id();
        together(4, &|thread| {
            assert_eq!((thread, std::thread::current().id()), (0, here));
            inner.fetch_add(1, Relaxed);
        });
    });
    assert_eq!((outer.into_inner(), inner.into_inner()), (4, 4));
}

#[test]
fn calls_from_many_threads_all_get_their_work_done() {
    let _alone = four_threads();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..300 {
                    let shares = AtomicUsize::new(0);
                    let done = AtomicUsize::new(0);
                    together(4, &|_| {
                        while shares.fetch_add(1, Relaxed) < 10 {
                            done.fetch_add(1, Relaxed);
                        }
                    });
                    assert_eq!(done.into_inner(), 10);
                }
            });
        }
    });
    assert_eq!(called(4), [1, 1, 1, 1, 0]);
}

#[test]
fn a_panic_ends_its_call_with_its_message_and_no_other() {
    let _alone = four_threads();
    type Fails = fn(usize) -> bool;
    let who: [Fails; 4] = [|_| true, |thread| thread == 0, |thread| thread == 3, |thread| thread % 2 == 1];
    for (fails, round) in who.into_iter().flat_map(|fails| (0..5).map(move |round| (fails, round))) {
        let finished = AtomicUsize::new(0);
        let work = |thread: usize| {
            assert!(!fails(thread), "on purpose");
            std::thread::sleep(Duration::from_micros(200));
            finished.fetch_add(1, Relaxed);
        };
        let panic = catch_unwind(AssertUnwindSafe(|| together(4, &work))).expect_err("it fails");
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        let expected = (0..4).filter(|&thread| !fails(thread)).count();
        assert_eq!(finished.into_inner(), expected, "all others were waited for");
        // All threads are still there, and the next call does not inherit the panic.
        assert_eq!(called(4), [1, 1, 1, 1, 0], "round {round}");
    }
}
