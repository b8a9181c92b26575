//! Long work beside the interpreter: other Python threads run, and Ctrl-C is heard.

use pyo3::{PyErr, PyResult, Python};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How often signals are looked for.
const LOOK: Duration = Duration::from_millis(20);

/// What unwinds out of work that was stopped.
struct Stopped;

/// Whether the work is to stop.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    /// For work that can end by itself.
    pub(crate) fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// Leaves work that has no other way to end than its callback: it unwinds, and [`run`] catches that.
    pub(crate) fn leave_if_stopped(&self) {
        if self.0.load(Ordering::Relaxed) {
            resume_unwind(Box::new(Stopped));
        }
    }
}

/// Runs `work` on a thread of its own. It is told to stop when a signal raises an exception, which is raised
/// once it has ended.
///
/// # Errors
/// What a signal raises.
///
/// # Panics
/// If `work` does.
pub(crate) fn run<T: Send>(py: Python<'_>, work: impl FnOnce(&Stop) -> T + Send) -> PyResult<T> {
    let (found, interrupt) = py.detach(|| {
        let stop = &Stop::default();
        let (done, ended) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(move || drop(done.send(catch_unwind(AssertUnwindSafe(|| work(stop))))));
            let mut interrupt: Option<PyErr> = None;
            loop {
                match ended.recv_timeout(LOOK) {
                    Ok(found) => return (Some(found), interrupt),
                    Err(RecvTimeoutError::Disconnected) => return (None, interrupt),
                    Err(RecvTimeoutError::Timeout) if interrupt.is_none() => {
                        interrupt = Python::attach(|py| py.check_signals()).err();
                        stop.0.store(interrupt.is_some(), Ordering::Relaxed);
                    }
                    Err(RecvTimeoutError::Timeout) => (),
                }
            }
        })
    });
    match (interrupt, found) {
        (Some(interrupt), _) => Err(interrupt),
        (None, Some(Ok(found))) => Ok(found),
        (None, Some(Err(panic))) => resume_unwind(panic),
        (None, None) => unreachable!("the work's thread sends before it ends"),
    }
}
