//! How much room a file needs, and how much the disk has.

use super::{floats, header};
use crate::config::TensorSpec;
use crate::error::Result;
use std::path::Path;

/// Bytes of the file that [`write_tensors`](super::write_tensors) makes of `specs`.
///
/// # Errors
/// If a name comes twice or the file would be too large for this machine.
pub fn tensors_size(path: &Path, specs: &[TensorSpec]) -> Result<u64> {
    let values: usize = specs.iter().map(TensorSpec::len).sum();
    let header = size_of::<u64>() + header(path, floats(specs))?.len();
    Ok((header + values * size_of::<f32>()) as u64)
}

/// Bytes that this user may still write to the disk of `folder`; none where the system does not say.
#[cfg(unix)]
pub fn free_space(folder: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    // A size of zero is how some network disks say that they do not know.
    (disk.f_blocks > 0).then(|| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// Bytes that this user may still write to the disk of `folder`; none where the system does not say.
#[cfg(not(unix))]
pub fn free_space(_folder: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::write_tensors;

    #[test]
    fn the_size_is_known_before_the_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.safetensors");
        let specs =
            [TensorSpec::new("b", &[3]), TensorSpec::new("long.name", &[20, 3]), TensorSpec::new("c", &[0])];
        write_tensors(&path, &specs, &mut |spec| vec![0.5; spec.len()].into()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), tensors_size(&path, &specs).unwrap());
    }

    #[cfg(unix)]
    #[test]
    fn the_disk_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        assert!(free_space(folder.path()).unwrap() > 0, "the other tests write there");
        assert_eq!(free_space(&folder.path().join("absent")), None);
    }
}
