//! The free space on a disk.

use std::path::Path;

/// Bytes that this user may still write to the disk of `folder`. `None` where the system does not say.
#[cfg(unix)]
pub fn free_space(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    // Some network disks report a size of zero when they do not know their size.
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes that this user may still write to the disk of `folder`. `None` where the system does not say.
#[cfg(not(unix))]
pub fn free_space(_folder: &Path) -> Option<u64> {
    None
}
