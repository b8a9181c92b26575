//! What every target promises of a file that nobody would write: the answer comes, it takes no more memory
//! than it should, no panic gets out, and an error is one line.

mod memory;
pub mod models;
pub mod scratch;
pub mod stories;

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::abort;
use std::sync::Mutex;

static LAST_PANIC: Mutex<String> = Mutex::new(String::new());

/// Once, before the first input. A panic of a library that a room catches is no finding; libFuzzer's own hook
/// would abort at it.
pub fn begin() {
    std::panic::set_hook(Box::new(|panic| {
        let trace = match std::env::var_os("RUST_BACKTRACE") {
            Some(_) => std::backtrace::Backtrace::force_capture().to_string(),
            None => String::new(),
        };
        *LAST_PANIC.lock().expect("nobody panics in here") = format!("{panic}\n{trace}");
    }));
}

/// Runs one input. A panic that nobody catches ends the process, and so does an allocation after which more
/// than `most_bytes` are in use that were not before.
pub fn hold(most_bytes: usize, input: impl FnOnce()) {
    memory::limit(most_bytes);
    let outcome = catch_unwind(AssertUnwindSafe(input));
    memory::lift();
    if outcome.is_err() {
        eprintln!("a panic that nobody caught: {}", LAST_PANIC.lock().expect("nobody panics in there"));
        abort();
    }
}

/// What a fault says: one line, of a length that somebody reads.
///
/// # Panics
/// If it does not.
pub fn check(error: &dyn Display) {
    let text = error.to_string();
    assert!(!text.chars().any(char::is_control), "more than a line, or control characters: {text:?}");
    assert!((10..=2000).contains(&text.len()), "{} bytes: {text}", text.len());
}

/// What an answer is worth: a fault is checked and gone.
pub fn answer<T, E: Display>(result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| check(error)).ok()
}
