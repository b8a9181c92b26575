//! How much room a file needs.

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
}
