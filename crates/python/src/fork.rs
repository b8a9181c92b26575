//! `fork` copies one thread. A child of a process in which offramp has threads could not compute: it is told
//! so, instead of waiting for threads that are not there.

use pyo3::exceptions::PyRuntimeError;
use pyo3::{PyResult, pyfunction};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether this process, or the one that it was forked from, has computed.
static COMPUTED: AtomicBool = AtomicBool::new(false);
/// Whether it was forked after that.
static LOST: AtomicBool = AtomicBool::new(false);

/// To be called in the child of a `fork`.
#[pyfunction]
pub(crate) fn forked() {
    LOST.store(COMPUTED.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// Allows this process to compute.
///
/// # Errors
/// If it was forked from one that had.
pub(crate) fn check() -> PyResult<()> {
    COMPUTED.store(true, Ordering::Relaxed);
    match LOST.load(Ordering::Relaxed) {
        false => Ok(()),
        true => Err(PyRuntimeError::new_err(
            "this process was forked from one in which offramp had threads, and fork does not copy them: start it \
             with multiprocessing.get_context(\"spawn\"), or use offramp in the child alone",
        )),
    }
}
