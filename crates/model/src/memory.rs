//! How much memory this process may still take, asked before it is taken: the kernel ends a process that
//! takes too much without a word, long after it was promised.

use crate::error::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// What is smaller is taken without asking: asking reads a few files.
const SMALL: u64 = 64 << 20;

/// Bytes that this process may still take, swap included: the least of what the machine, the process's
/// control groups (a container, a job, a service) and its own limit leave. None where the system does not
/// say.
pub fn available() -> Option<u64> {
    available_in(Path::new("/"))
}

/// Checks that `what` fits the memory.
///
/// # Errors
/// [`Error::NoMemory`] if it needs more bytes than are available.
pub fn check(what: &str, needed: u64) -> Result<()> {
    if needed < SMALL {
        return Ok(());
    }
    fits(what, needed, available())
}

/// Where nobody knows what is available, taking it will tell.
fn fits(what: &str, needed: u64, available: Option<u64>) -> Result<()> {
    match available {
        Some(available) if available < needed => {
            Err(Error::NoMemory { what: what.to_owned(), needed, available })
        }
        _ => Ok(()),
    }
}

fn available_in(root: &Path) -> Option<u64> {
    let (free, swap) = machine(&root.join("proc/meminfo"))?;
    let mut least = free.saturating_add(swap);
    for group in groups(root) {
        least = least.min(group.left(swap).unwrap_or(u64::MAX));
    }
    Some(least.min(own_limit(root).unwrap_or(u64::MAX)))
}

/// What the machine has left, and how much of it in swap.
fn machine(meminfo: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(meminfo).ok()?;
    let kilobytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let bytes = |key| Some(kilobytes(key)?.saturating_mul(1024));
    Some((bytes("MemAvailable:")?, bytes("SwapFree:").unwrap_or(0)))
}

/// What `ulimit -v` leaves of the address space.
fn own_limit(root: &Path) -> Option<u64> {
    let limits = fs::read_to_string(root.join("proc/self/limits")).ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = line.split_whitespace().next()?.parse().ok()?; // "unlimited" is none
    let status = fs::read_to_string(root.join("proc/self/status")).ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:"))?;
    let size: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(limit.saturating_sub(size.saturating_mul(1024)))
}

/// One control group: its files, by either version's names.
struct Group {
    folder: PathBuf,
    limit: &'static str,
    usage: &'static str,
    /// What of the usage the kernel takes back at need: files that are cached.
    cached: [&'static str; 2],
    /// Limit and usage of swap; of version 1, of both together.
    swap: [&'static str; 2],
}

impl Group {
    fn v2(folder: PathBuf) -> Self {
        let swap = ["memory.swap.max", "memory.swap.current"];
        let cached = ["active_file", "inactive_file"];
        Self { folder, limit: "memory.max", usage: "memory.current", cached, swap }
    }

    fn v1(folder: PathBuf) -> Self {
        let swap = ["memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"];
        let cached = ["total_active_file", "total_inactive_file"];
        Self { folder, limit: "memory.limit_in_bytes", usage: "memory.usage_in_bytes", cached, swap }
    }

    fn number(&self, file: &str) -> Option<u64> {
        fs::read_to_string(self.folder.join(file)).ok()?.trim().parse().ok() // "max" is none
    }

    /// What the group may still take, if it has a limit; `swap` is free on the machine.
    fn left(&self, swap: u64) -> Option<u64> {
        let limit = self.number(self.limit)?;
        let usage = self.number(self.usage)?;
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let cached = |key: &str| {
            let line = stat.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
            line.and_then(|bytes| bytes.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let cached = cached(self.cached[0]).saturating_add(cached(self.cached[1]));
        let memory = limit.saturating_sub(usage.saturating_sub(cached));
        let [swap_limit, swap_usage] = self.swap.map(|file| self.number(file));
        let swap_left = swap_limit.map(|limit| limit.saturating_sub(swap_usage.unwrap_or(0)));
        if self.limit == "memory.max" {
            return Some(memory.saturating_add(swap_left.unwrap_or(swap).min(swap)));
        }
        // Version 1 limits memory and swap together.
        let together = swap_left.map_or(u64::MAX, |left| left.saturating_add(cached));
        Some(memory.saturating_add(swap).min(together))
    }
}

/// The control groups of this process, from its own up to the root: each may have a limit. A container sees
/// its own group as the root; then the path that it is told leads nowhere, and the root's files are its own.
fn groups(root: &Path) -> Vec<Group> {
    let told = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let mut groups = Vec::new();
    for line in told.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (mount, group): (&str, fn(PathBuf) -> Group) = match controllers {
            "" => ("sys/fs/cgroup", Group::v2),
            list if list.split(',').any(|name| name == "memory") => ("sys/fs/cgroup/memory", Group::v1),
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        groups.extend(path.ancestors().map(|path| group(root.join(mount).join(path))));
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A machine of files.
    fn machine_of(files: &[(&str, String)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn meminfo(available: u64, swap: u64) -> (&'static str, String) {
        let [available, swap] = [available, swap].map(|bytes| bytes / 1024);
        let text = format!("MemTotal: 99 kB\nMemAvailable: {available:>12} kB\nSwapFree: {swap} kB\n");
        ("proc/meminfo", text)
    }

    fn left(files: &[(&str, String)]) -> Option<u64> {
        available_in(machine_of(files).path())
    }

    #[test]
    fn a_machine_leaves_what_it_says_and_its_swap() {
        assert_eq!(left(&[]), None, "nobody says");
        assert_eq!(left(&[meminfo(8 * GIB, 2 * GIB)]), Some(10 * GIB));
    }

    #[test]
    fn the_narrowest_group_counts_and_cached_files_do_not() {
        let own = "sys/fs/cgroup/slice/job";
        let group = |max: &str, file: u64| {
            vec![
                meminfo(8 * GIB, 0),
                ("proc/self/cgroup", "0::/slice/job\n".to_owned()),
                ("sys/fs/cgroup/slice/job/memory.max", format!("{max}\n")),
                ("sys/fs/cgroup/slice/job/memory.current", format!("{}\n", 3 * GIB)),
                (
                    "sys/fs/cgroup/slice/job/memory.stat",
                    format!("anon 7\nactive_file {file}\ninactive_file 0\n"),
                ),
            ]
        };
        assert_eq!(left(&group("max", 0)), Some(8 * GIB), "{own} has no limit");
        assert_eq!(left(&group(&(4 * GIB).to_string(), 0)), Some(GIB));
        assert_eq!(left(&group(&(4 * GIB).to_string(), 2 * GIB)), Some(3 * GIB));
        assert_eq!(left(&group(&(2 * GIB).to_string(), 0)), Some(0), "more is in use than allowed");
        // A limit of the group above counts too.
        let mut files = group(&(7 * GIB).to_string(), 0);
        files.push(("sys/fs/cgroup/slice/memory.max", (5 * GIB).to_string()));
        files.push(("sys/fs/cgroup/slice/memory.current", (4 * GIB).to_string()));
        assert_eq!(left(&files), Some(GIB));
        // Swap, where the group may have some and there is some.
        let mut files = group(&(4 * GIB).to_string(), 0);
        files[0] = meminfo(8 * GIB, 3 * GIB);
        assert_eq!(left(&files), Some(4 * GIB));
        files.push(("sys/fs/cgroup/slice/job/memory.swap.max", "0".to_owned()));
        assert_eq!(left(&files), Some(GIB));
    }

    #[test]
    fn groups_of_version_1_and_of_containers_count() {
        let told = ("proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n".to_owned());
        let limit = |place: &'static str, limit: u64| {
            vec![
                meminfo(8 * GIB, 0),
                told.clone(),
                (place, limit.to_string()),
                ("sys/fs/cgroup/memory/memory.usage_in_bytes", GIB.to_string()),
                ("sys/fs/cgroup/memory/memory.stat", "total_inactive_file 1024\n".to_owned()),
            ]
        };
        // Inside the container the path leads nowhere: the root's files are its own.
        let root = "sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(left(&limit(root, 3 * GIB)), Some(2 * GIB + 1024));
        assert_eq!(
            left(&limit(root, 0x7fff_ffff_ffff_f000)),
            Some(8 * GIB),
            "no limit, in version 1's words"
        );
        let mut files = limit(root, 3 * GIB);
        files.push(("sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", (2 * GIB).to_string()));
        files.push(("sys/fs/cgroup/memory/memory.memsw.usage_in_bytes", GIB.to_string()));
        assert_eq!(left(&files), Some(GIB + 1024));
    }

    #[test]
    fn a_limit_of_the_process_counts() {
        let limits = |limit: &str| {
            let text =
                format!("Limit Soft Hard Units\nMax address space         {limit}   unlimited   bytes\n");
            let status = format!("VmSize:\t {} kB\n", GIB / 1024);
            left(&[meminfo(8 * GIB, 0), ("proc/self/limits", text), ("proc/self/status", status)])
        };
        assert_eq!(limits("unlimited"), Some(8 * GIB));
        assert_eq!(limits(&(3 * GIB).to_string()), Some(2 * GIB));
    }

    #[test]
    fn what_does_not_fit_is_one_line_with_both_numbers() {
        let message = fits("the weights in f32", 5_000_000_001, Some(4_999_999_999)).unwrap_err().to_string();
        for part in ["the weights in f32", "5.1 GB", "4.9 GB are available"] {
            assert!(message.contains(part) && !message.contains('\n'), "{message:?} does not say {part:?}");
        }
        assert!(fits("x", 7, Some(7)).is_ok() && fits("x", u64::MAX, None).is_ok());
        #[cfg(target_os = "linux")]
        {
            assert!(available().unwrap() > 0 && check("x", SMALL - 1).is_ok());
            assert!(check("x", u64::MAX).is_err());
        }
    }
}
