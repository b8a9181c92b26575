//! How many threads work: the one pool that every room shares.

use std::error::Error;

/// The pool cannot have the number of threads that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// It was already at work with another.
    #[error("the number of threads is already {0}: set it before the first computation")]
    AlreadyRunning(usize),
    /// The system does not give so many; nothing can be computed in this process any more.
    #[error("the system does not give {threads} threads: {reason}: ask for fewer")]
    NotGiven {
        /// What was asked for.
        threads: usize,
        /// What the system answered.
        reason: String,
    },
}

/// Threads that share the work, at first the number of processors.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Sets the number of threads; possible once, before the first computation.
///
/// # Errors
/// If the pool already runs with another number, or the system does not give so many.
pub fn set_threads(threads: usize) -> Result<(), PoolError> {
    let Err(error) = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() else {
        return Ok(());
    };
    // Only a failure of the system has a source. After it there is no pool, and asking it for its
    // number of threads would panic.
    match error.source() {
        Some(reason) => Err(PoolError::NotGiven { threads, reason: reason.to_string() }),
        None if self::threads() == threads => Ok(()),
        None => Err(PoolError::AlreadyRunning(self::threads())),
    }
}
