//! Writing and reading safetensors files of `f32` tensors.

use super::checksum::Checksum;
use super::replace::SummedWriter;
use crate::error::{Error, Result};
use crate::format::Format;
use crate::layout::Layout;
use crate::tensor::TensorSpec;
use crate::weights::Weights;
use safetensors::tensor::{Metadata, TensorInfo};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Tensors begin at a multiple of this if all before them fill whole cache lines.
const CACHE_LINE: usize = 64;

/// Writes named `f32` tensors to a safetensors file, in the order of `specs`.
///
/// # Errors
/// If a name comes twice, a tensor has the wrong length, or the file cannot be written.
pub fn write_tensors<'a>(
    path: &Path,
    specs: &[TensorSpec],
    tensors: &mut dyn FnMut(&TensorSpec) -> Cow<'a, [f32]>,
) -> Result<Checksum> {
    let header = header(path, floats(specs))?;
    let mut unfinished = SummedWriter::create(path)?;
    unfinished.write(&(header.len() as u64).to_le_bytes())?;
    unfinished.write(&header)?;
    for spec in specs {
        let values = tensors(spec);
        if values.len() != spec.len() {
            return Err(Error::wrong_length(spec, values.len()));
        }
        unfinished.write(bytemuck::cast_slice(&values))?; // little-endian, as every machine this runs on
    }
    unfinished.publish()
}

/// Reads a file that [`write_tensors`] wrote, which must hold exactly the tensors of `specs`: each into the
/// slice with the same index.
///
/// # Errors
/// If the file cannot be read, is damaged, holds other tensors, or a value is not finite.
///
/// # Panics
/// If a slice has another length than its spec.
pub fn read_tensors<'a>(
    path: &Path,
    specs: &[TensorSpec],
    into: impl IntoIterator<Item = &'a mut [f32]>,
) -> Result<()> {
    let file = Weights::open_file(path, specs)?;
    specs.iter().zip(into).try_for_each(|(spec, values)| file.read(spec, values))
}

/// The header of a file that holds these tensors in this order, padded so that they begin at a cache line.
pub(super) fn header<'a>(
    path: &Path,
    tensors: impl Iterator<Item = (&'a TensorSpec, Layout)>,
) -> Result<Vec<u8>> {
    let mut start = 0usize;
    let mut names = BTreeSet::new();
    let mut infos = Vec::new();
    for (spec, layout) in tensors {
        let end = layout.bytes().and_then(|bytes| start.checked_add(bytes));
        let too_large = || Error::safetensors(path, format!("{} {:?} is too large", spec.name, spec.shape));
        let (shape, data_offsets) = (layout.shape(spec), (start, end.ok_or_else(too_large)?));
        if !names.insert(&spec.name) {
            return Err(Error::DuplicateTensor { path: path.to_owned(), tensor: spec.name.clone() });
        }
        infos.push((spec.name.clone(), TensorInfo { dtype: layout.dtype(), shape, data_offsets }));
        start = data_offsets.1;
    }
    // transformers takes a file without this for another framework's.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos);
    let metadata = metadata.map_err(|error| Error::safetensors(path, error.to_string()))?;
    let mut header =
        serde_json::to_vec(&metadata).map_err(|error| Error::safetensors(path, error.to_string()))?;
    let length = size_of::<u64>();
    header.resize((length + header.len()).next_multiple_of(CACHE_LINE) - length, b' ');
    Ok(header)
}

/// Tensors of `f32`.
fn floats(specs: &[TensorSpec]) -> impl Iterator<Item = (&TensorSpec, Layout)> {
    specs.iter().map(|spec| (spec, Layout::new(spec, Format::F32)))
}

/// Bytes of the file that [`write_tensors`] makes of `specs`.
///
/// # Errors
/// If a name comes twice or the size does not fit a `usize`.
pub fn tensors_size(path: &Path, specs: &[TensorSpec]) -> Result<u64> {
    let values: usize = specs.iter().map(TensorSpec::len).sum();
    let header = size_of::<u64>() + header(path, floats(specs))?.len();
    Ok((header + values * size_of::<f32>()) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

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
