//! The memory of this process, now and at its peak.

/// Resident memory of this process, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Now.
    pub resident: u64,
    /// The peak so far.
    pub peak: u64,
}

/// The resident memory of this process, where the system reports it (`VmRSS` and `VmHWM` on Linux).
pub fn memory() -> Option<Memory> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The peak resident memory of this process in bytes, where the system reports it.
pub fn peak_memory() -> Option<u64> {
    Some(memory()?.peak)
}

/// Resets the peak to what is resident now, where the system can.
pub(crate) fn forget_peak() {
    // If it cannot, the peak stays that of the whole process.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

fn parse(status: &str) -> Option<Memory> {
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kilobytes * 1024)
    };
    let (resident, peak) = (bytes("VmRSS:")?, bytes("VmHWM:")?);
    // The kernel updates the two at different moments.
    Some(Memory { resident, peak: peak.max(resident) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_counts_in_units_of_1024() {
        let status = "Name:\tofframp\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t2\n";
        assert_eq!(parse(status), Some(Memory { resident: 1 << 20, peak: 2 << 20 }));
        assert_eq!(parse("Name:\tofframp\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_tells() {
        let memory = memory().unwrap();
        assert!(0 < memory.resident && memory.resident <= memory.peak);
    }
}
