//! One safetensors file, mapped.

use super::map::Map;
use super::{F32Storage, first_not_finite, header};
use crate::config::TensorSpec;
use crate::error::{Error, Result, open_regular};
use offramp_kernels::convert::{bf16_to_f32, f16_to_f32};
use offramp_kernels::rayon::prelude::*;
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a file holds, and where.
#[derive(Debug)]
pub(super) struct TensorFile {
    path: PathBuf,
    file: File,
    map: Arc<Map>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>, // in the file; as many as dtype and shape ask for
}

/// Values that one thread widens before it asks for more.
const CHUNK: usize = 1 << 16;

impl TensorFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::read(path, error);
        let file = open_regular(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            return Err(Error::safetensors(path, "it is empty")); // and cannot be mapped
        }
        let map = Arc::new(Map::new(&file).map_err(failed)?);
        let (start, metadata) = header::parse(map.bytes(), path)?;
        let entry = |info: &safetensors::tensor::TensorInfo| Entry {
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: start + info.data_offsets.0..start + info.data_offsets.1,
        };
        let entries = metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
        Ok(Self { path: path.to_owned(), file, map, entries })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn bytes(&self) -> u64 {
        self.map.bytes().len() as u64
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of a tensor that is there.
    pub(super) fn shape(&self, name: &str) -> &[usize] {
        &self.entries[name].shape
    }

    /// Each tensor's number format and count of values.
    pub(super) fn formats(&self) -> impl Iterator<Item = (String, u64)> {
        let values = |entry: &Entry| entry.shape.iter().map(|&size| size as u64).product();
        self.entries.values().map(move |entry| (entry.dtype.to_string(), values(entry)))
    }

    /// Checks shape and number format of a tensor that is there.
    pub(super) fn check(&self, spec: &TensorSpec) -> Result<()> {
        let Entry { dtype, shape, .. } = &self.entries[&spec.name];
        let (path, tensor) = (self.path.clone(), spec.name.clone());
        if *shape != spec.shape {
            return Err(Error::Shape { path, tensor, expected: spec.shape.clone(), found: shape.clone() });
        }
        match dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => Ok(()),
            other => Err(Error::NumberFormat { path, tensor, found: other.to_string() }),
        }
    }

    /// The values of a tensor that is there.
    pub(super) fn values(&self, spec: &TensorSpec) -> Result<F32Storage> {
        self.check(spec)?;
        let Entry { dtype, bytes: range, .. } = &self.entries[&spec.name];
        let bytes = &self.map.bytes()[range.clone()];
        match dtype {
            Dtype::F32 => {
                let mapped = F32Storage::mapped(&self.map, range.clone());
                Ok(mapped.unwrap_or_else(|| widened(bytes, size_of::<f32>(), copy)))
            }
            Dtype::F16 => Ok(widened(bytes, 2, f16_to_f32)),
            Dtype::BF16 => Ok(widened(bytes, 2, bf16_to_f32)),
            other => unreachable!("check() refuses {other}"),
        }
    }

    /// The values of a tensor that is there, into a buffer: read, not mapped, where they stand as `f32`.
    pub(super) fn read(&mut self, spec: &TensorSpec, values: &mut [f32]) -> Result<()> {
        assert_eq!(values.len(), spec.len(), "a buffer of the tensor's length");
        self.check(spec)?;
        let Entry { dtype, bytes, .. } = &self.entries[&spec.name];
        if *dtype != Dtype::F32 {
            values.copy_from_slice(self.values(spec)?.as_slice());
            return Ok(());
        }
        let sought = self.file.seek(SeekFrom::Start(bytes.start as u64));
        let read = sought.and_then(|_| self.file.read_exact(bytemuck::cast_slice_mut(values)));
        read.map_err(|error| Error::read(&self.path, error))
    }

    /// Checks that a tensor's values are numbers.
    pub(super) fn check_finite(&self, spec: &TensorSpec, values: &[f32]) -> Result<()> {
        match first_not_finite(values) {
            None => Ok(()),
            Some((index, found)) => {
                let (path, tensor) = (self.path.clone(), spec.name.clone());
                Err(Error::NotFinite { path, tensor, index, found })
            }
        }
    }
}

/// Values of `width` bytes each, made `f32` on all threads.
fn widened(bytes: &[u8], width: usize, convert: impl Fn(&[u8], &mut [f32]) + Sync) -> F32Storage {
    let mut values = vec![0.0f32; bytes.len() / width];
    let pairs = values.par_chunks_mut(CHUNK).zip(bytes.par_chunks(CHUNK * width));
    pairs.for_each(|(values, bytes)| convert(bytes, values));
    values.into()
}

/// Little-endian `f32` that are not aligned.
fn copy(bytes: &[u8], out: &mut [f32]) {
    for (bytes, value) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *value = f32::from_le_bytes(*bytes);
    }
}
