//! How many threads work: the one pool that every room shares.

/// The pool was already at work with another number of threads.
#[derive(Debug, thiserror::Error)]
#[error("the number of threads is already {0}: set it before the first computation")]
pub struct AlreadyRunning(usize);

/// Threads that share the work, at first the number of processors.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Sets the number of threads; possible once, before the first computation.
///
/// # Errors
/// If the pool already runs with another number.
pub fn set_threads(threads: usize) -> Result<(), AlreadyRunning> {
    match rayon::ThreadPoolBuilder::new().num_threads(threads).build_global() {
        Ok(()) => Ok(()),
        Err(_) if self::threads() == threads => Ok(()),
        Err(_) => Err(AlreadyRunning(self::threads())),
    }
}
