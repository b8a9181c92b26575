//! Asking for threads: how many there are, what is said when there cannot be as many, and that idle ones
//! sleep.

use offramp_kernels::pool::{PoolError, set_threads, threads};
use offramp_kernels::team::together;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

#[test]
fn the_number_is_set_once() {
    set_threads(2).expect("the first call of this process");
    set_threads(2).expect("the same number again");
    assert_eq!(threads(), 2);
    assert!(matches!(set_threads(3), Err(PoolError::AlreadyRunning(2))));
}

/// In a process of its own, which has no room for the stacks of a thousand threads.
#[cfg(target_os = "linux")]
#[test]
fn more_threads_than_the_system_gives_are_an_error() {
    use std::process::Command;
    const ALONE: &str = "OFFRAMP_TEST_TOO_MANY_THREADS";
    if std::env::var_os(ALONE).is_some() {
        let message = set_threads(1000).expect_err("no room for them").to_string();
        assert!(message.starts_with("the system does not give 1000 threads: "), "{message}");
        assert!(message.ends_with(": ask for fewer") && !message.contains('\n'), "{message}");
        return;
    }
    let test = std::env::current_exe().expect("this test");
    let run = || {
        let script =
            r#"ulimit -v 1000000 && exec "$0" --exact more_threads_than_the_system_gives_are_an_error"#;
        Command::new("sh").args(["-c", script]).arg(&test).env(ALONE, "1").output().expect("a shell")
    };
    // Now and then a thread that was given has no room left to begin in, and the system library ends the
    // process.
    let mut outputs = (0..5).map(|_| run()).skip_while(|output| output.status.code().is_none());
    let output = outputs.next().expect("a process that comes to its end");
    assert!(output.status.success(), "{output:?}");
}

/// Time of this process's threads on a processor, in hundredths of a second.
#[cfg(target_os = "linux")]
fn processor_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux has it");
    let fields = stat.rsplit(')').next().expect("after the name").split_whitespace();
    fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum()
}

/// Two threads, so that they wait awake where there are two processors.
#[cfg(target_os = "linux")]
#[test]
fn idle_threads_sleep() {
    set_threads(2).expect("all tests of this process want as many");
    for _ in 0..2 {
        let until = Instant::now() + Duration::from_millis(5);
        while Instant::now() < until {
            let called = AtomicUsize::new(0);
            together(2, &|_| {
                called.fetch_add(1, Relaxed);
            });
            assert!((1..=2).contains(&called.into_inner()));
        }
        std::thread::sleep(Duration::from_millis(1));
        let before = processor_time();
        std::thread::sleep(Duration::from_millis(200));
        let ticks = processor_time() - before;
        assert!(ticks <= 5, "{ticks} hundredths of a second in 20: one thread awake would take all");
    }
}
