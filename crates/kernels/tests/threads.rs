//! Asking for threads: how many there are, and what is said when there cannot be as many.

use offramp_kernels::pool::{PoolError, set_threads, threads};

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
    let output = Command::new("sh")
        .args([
            "-c",
            r#"ulimit -v 1000000 && exec "$0" --exact more_threads_than_the_system_gives_are_an_error"#,
        ])
        .arg(test)
        .env(ALONE, "1")
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}
