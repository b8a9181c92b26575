//! The number of threads: one pool, which all crates share.

use std::collections::HashSet;
use std::error::Error;
use std::path::Path;

/// The pool cannot have the number of threads that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// It already runs with another number.
    #[error("the number of threads is already {0}: set it before the first computation")]
    AlreadyRunning(usize),
    /// The system does not start so many threads. Nothing can be computed in this process any more.
    #[error("the system does not give {threads} threads: {reason}: ask for fewer")]
    NotGiven {
        /// The number that was asked for.
        threads: usize,
        /// What the system answered.
        reason: String,
    },
}

/// Threads that share the work, at first the number of processors.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Physical cores that this process may use. Two threads on one core share its memory access and its
/// arithmetic units, for which decoding waits, so that a second one brings nothing.
pub fn physical_cores() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // If the system does not say, every processor counts as a core.
    cores(Path::new("/sys/devices/system/cpu")).map_or(processors, |cores| cores.clamp(1, processors))
}

/// Cores of the processors that Linux lists in `folder`.
fn cores(folder: &Path) -> Option<usize> {
    let mut found = HashSet::new();
    for entry in std::fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("cpu"));
        if number.is_none_or(|number| number.parse::<u32>().is_err()) {
            continue; // `cpufreq`, `cpuidle`, …
        }
        let topology = entry.path().join("topology");
        // The second is its name on older systems. A processor that is switched off has neither.
        let names = ["core_cpus_list", "thread_siblings_list"];
        let list = names.iter().find_map(|name| std::fs::read_to_string(topology.join(name)).ok());
        found.extend(list.map(|list| list.trim().to_owned()));
    }
    Some(found.len()).filter(|&cores| cores > 0)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_core_is_counted_once() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(cores(folder.path()), None, "a system that does not tell");
        let write = |processor: &str, file: &str, list: &str| {
            let topology = folder.path().join(processor).join("topology");
            fs::create_dir_all(&topology).expect("a folder");
            fs::write(topology.join(file), list).expect("a file");
        };
        write("cpu0", "core_cpus_list", "0,2\n");
        write("cpu2", "core_cpus_list", "0,2\n");
        write("cpu1", "thread_siblings_list", "1,3\n");
        write("cpu3", "thread_siblings_list", "1,3\n");
        write("cpufreq", "core_cpus_list", "9\n");
        fs::create_dir(folder.path().join("cpu4")).expect("a folder"); // switched off
        assert_eq!(cores(folder.path()), Some(2));
        assert_eq!(cores(&folder.path().join("none")), None);
    }

    #[test]
    fn there_are_no_more_cores_than_processors() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        assert!((1..=processors).contains(&physical_cores()));
    }
}
