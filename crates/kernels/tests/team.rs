//! The engine's threads: those that come are waited for, no others are, a panic ends its call and no more.
//!
//! Tests share one machine with what else runs on it: a thread that is asked may come late or not at all. So
//! what needs a thread asks for it again and again, and what all work must come to is the same whoever comes.

use offramp_kernels::{Claims, ColumnsMut, Job, Operand, Weight, linear, pool, team};
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{scope, sleep, yield_now};
use std::time::{Duration, Instant};
use team::{share, together};

/// In which anything that is to happen has happened, however busy the machine.
const LONG: Duration = Duration::from_secs(60);

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

/// Calls until all four threads are at work at once, and then lets them do `work`.
#[track_caller]
fn all_four(work: impl Fn(usize) + Sync) {
    let begun = Instant::now();
    let mut all = false;
    while !all {
        assert!(begun.elapsed() < LONG, "threads that never come");
        // Whoever rests is not asked by this call: it is given up, and another asks again.
        const GIVEN_UP: usize = 100;
        let here = AtomicUsize::new(0);
        together(4, &|thread| {
            let until = Instant::now() + Duration::from_millis(20);
            here.fetch_add(1, SeqCst);
            while here.load(SeqCst) < 4 {
                if thread == 0 && Instant::now() > until {
                    let give_up = |here: usize| (here < 4).then_some(here + GIVEN_UP);
                    let _ = here.fetch_update(SeqCst, SeqCst, give_up);
                }
                yield_now();
            }
            if here.load(SeqCst) == 4 {
                work(thread);
            }
        });
        all = here.into_inner() == 4;
    }
}

/// Twice as many threads as processors that only keep them busy, while `work` is done.
fn beside_busy_threads(work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    scope(|scope| {
        for _ in 0..2 * processors {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    black_box(0);
                }
            });
        }
        let panic = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Relaxed);
        panic.expect("what was done beside them");
    });
}

#[test]
fn the_caller_always_works_and_others_at_most_once() {
    let _alone = four_threads();
    for round in 0..3000 {
        let threads = round % 7;
        let found = called(threads);
        assert_eq!(found[0], 1, "round {round}");
        for (thread, &times) in found.iter().enumerate() {
            assert!(times <= usize::from(thread < threads.clamp(1, 4)), "round {round}: {found:?}");
        }
        if round % 300 == 0 {
            sleep(Duration::from_millis(1)); // so that they are called from sleep too
        } else if round % 100 == 0 {
            sleep(Duration::from_micros(380)); // and as they fall asleep
        }
    }
}

/// Threads that sleep take longer to come than this call has work.
#[test]
fn who_has_not_come_is_not_waited_for() {
    let _alone = four_threads();
    let ends_early = (0..1000).any(|_| {
        sleep(Duration::from_millis(2));
        called(4).iter().sum::<usize>() < 4
    });
    assert!(ends_early, "every call waited for all of its threads");
}

/// A wake-up that is lost would leave a thread asleep for ever.
#[test]
fn every_thread_comes_awake_or_asleep_or_between() {
    let _alone = four_threads();
    for pause in [0, 0, 390, 400, 410, 2000, 0, 395, 405, 1000] {
        sleep(Duration::from_micros(pause));
        all_four(|_| ());
    }
}

#[test]
fn every_thread_comes_back_after_the_machine_was_busy() {
    let _alone = four_threads();
    beside_busy_threads(|| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(300) {
            called(4);
        }
    });
    all_four(|_| ());
}

#[test]
fn what_threads_write_is_there_afterwards() {
    let _alone = four_threads();
    for round in 0..50 {
        let mut parts = [[0usize; 16]; 4];
        let places = parts.each_mut().map(Mutex::new);
        all_four(|thread| places[thread].lock().unwrap().fill(round + thread));
        for (thread, part) in parts.iter().enumerate() {
            assert_eq!(part, &[round + thread; 16]);
        }
    }
}

/// The last to be done is another than the caller.
#[test]
fn who_has_work_in_hand_is_waited_for() {
    let _alone = four_threads();
    for late in 1..4 {
        let finished = AtomicUsize::new(0);
        all_four(|thread| {
            if thread == late {
                sleep(Duration::from_millis(5));
            }
            finished.fetch_add(1, Relaxed);
        });
        assert_eq!(finished.into_inner(), 4, "thread {late}");
    }
}

/// Each part takes some threads long; the caller takes what they leave.
#[test]
fn threads_that_are_slow_or_gone_change_no_result() {
    let _alone = four_threads();
    for round in 0..60 {
        let mut out = vec![0.0; 3 * 40];
        let claims = Claims::new(ColumnsMut::new(&mut out, 40), 1, 3, 4);
        together(4, &|thread| {
            if thread == 1 + round % 3 {
                sleep(Duration::from_micros(300)); // before it has anything
            }
            while let Some((first, mut columns)) = claims.claim(thread) {
                if thread == 1 + (round + 1) % 3 {
                    sleep(Duration::from_micros(300)); // with a part in hand
                }
                for row in 0..3 {
                    let values = (row * 40 + first..).map(|i| i as f32);
                    columns.row(row).iter_mut().zip(values).for_each(|(out, value)| *out += value);
                }
            }
        });
        assert!(out.iter().zip(0..).all(|(&found, i)| found == i as f32), "round {round}");
    }
}

/// Invariant 4, where threads are put off their processors all the time.
#[test]
fn a_product_on_a_busy_machine_has_the_same_bits() {
    let _alone = four_threads();
    let (rows, k) = (1030, 256);
    let values: Vec<f32> = (0..rows * k).map(|i| (i * 7919 % 1013) as f32 / 506.5 - 1.0).collect();
    for tokens in [1, 5, 40] {
        let (x, mut operand) = (&values[..tokens * k], Operand::default());
        let mut product = || {
            let mut out = vec![f32::NAN; tokens * rows];
            linear(x, k, &mut operand, &mut [Job { weight: Weight::F32(&values), out: &mut out }]);
            out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
        };
        let alone = {
            // Within a call another has one thread.
            let (product, out) = (Mutex::new(&mut product), Mutex::new(Vec::new()));
            share(2, std::iter::once(()), |()| *out.lock().unwrap() = (product.lock().unwrap())());
            out.into_inner().unwrap()
        };
        beside_busy_threads(|| {
            for round in 0..100 {
                assert!(product() == alone, "{tokens} tokens, round {round}");
            }
        });
    }
}

#[test]
fn a_call_within_a_call_is_done_by_its_thread() {
    let _alone = four_threads();
    let (outer, inner) = (AtomicUsize::new(0), AtomicUsize::new(0));
    all_four(|_| {
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
    scope(|scope| {
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
    all_four(|_| ());
}

#[test]
fn a_panic_ends_its_call_with_its_message_and_no_other() {
    let _alone = four_threads();
    type Fails = fn(usize) -> bool;
    let who: [Fails; 4] = [|_| true, |thread| thread == 0, |thread| thread == 3, |thread| thread % 2 == 1];
    for fails in who.into_iter().flat_map(|fails| [fails; 5]) {
        let finished = AtomicUsize::new(0);
        let work = |thread: usize| {
            assert!(!fails(thread), "on purpose");
            sleep(Duration::from_micros(200));
            finished.fetch_add(1, Relaxed);
        };
        let panic = catch_unwind(AssertUnwindSafe(|| all_four(work))).expect_err("it fails");
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
        let expected = (0..4).filter(|&thread| !fails(thread)).count();
        assert_eq!(finished.into_inner(), expected, "all others were waited for");
        // The next call does not inherit the panic, and all threads are still there.
        assert_eq!(called(4)[0], 1);
        all_four(|_| ());
    }
}
