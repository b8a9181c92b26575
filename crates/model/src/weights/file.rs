//! One safetensors file, mapped.

use super::gguf_rows::{Coded, Rows};
use super::{bitnet, finite, header};
use crate::error::{Error, Result, open_regular};
use crate::format::Format;
use crate::gguf::{GgufFile, RowOrder, nearest_format};
use crate::layout::{Layout, Values};
use crate::storage::{Map, Mapped};
use crate::tensor::TensorSpec;
use crate::text_file::is_pointer;
use offramp_gguf::{TensorInfo, TensorType};
use offramp_kernels::convert::{bf16_to_f32, f16_to_f32};
use offramp_kernels::strips::{self, STRIP, StripFormat};
use safetensors::Dtype;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// A file and the tensors in it.
#[derive(Debug)]
pub(super) struct TensorFile {
    path: PathBuf,
    file: Option<File>, // none for bytes that the program carries
    map: Arc<Map>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    dtype: Stored,
    shape: Vec<usize>,
    bytes: Range<usize>, // in the file; as many as dtype and shape ask for
    checked: Option<Checked>,
    step: OnceLock<Option<f32>>,
}

/// The number format of a tensor in a file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    /// safetensors'.
    Dtype(Dtype),
    /// GGUF's, and how its rows are ordered.
    Gguf(TensorType, RowOrder),
}

impl Stored {
    fn is_float(self) -> bool {
        match self {
            Self::Dtype(dtype) => matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16),
            Self::Gguf(kind, _) => kind.is_float(),
        }
    }

    /// Whether it is one of these, in the order of the model.
    fn is(self, dtype: Dtype, kind: TensorType) -> bool {
        self == Self::Dtype(dtype) || self == Self::Gguf(kind, RowOrder::Own)
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dtype(dtype) => dtype.fmt(f),
            Self::Gguf(kind, _) => f.write_str(&kind.name()),
        }
    }
}

/// What a tensor was checked to be.
#[derive(Debug)]
struct Checked {
    shape: Vec<usize>,      // of the model's tensor, which may be packed in the file
    strips: Option<Format>, // none: floats
}

impl TensorFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::read(path, error);
        let file = open_regular(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            return Err(Error::safetensors(path, "it is empty")); // and cannot be mapped
        }
        let map = Map::new(&file).map_err(failed)?;
        Self::of(path, Some(file), map)
    }

    /// As [`TensorFile::open`], of bytes that the program carries; `path` names them in errors.
    pub(super) fn given(path: &Path, bytes: &'static [u8]) -> Result<Self> {
        Self::of(path, None, Map::Given(bytes))
    }

    fn of(path: &Path, file: Option<File>, map: Map) -> Result<Self> {
        if is_pointer(map.bytes()) {
            return Err(Error::LfsPointer { path: path.to_owned() });
        }
        let (start, metadata) = header::parse(map.bytes(), path)?;
        let entry = |info: &safetensors::tensor::TensorInfo| Entry {
            dtype: Stored::Dtype(info.dtype),
            shape: info.shape.clone(),
            bytes: start + info.data_offsets.0..start + info.data_offsets.1,
            checked: None,
            step: OnceLock::new(),
        };
        let entries = metadata.tensors().into_iter().map(|(name, info)| (name, entry(info))).collect();
        Ok(Self { path: path.to_owned(), file, map: Arc::new(map), entries })
    }

    /// The tensors of a GGUF file, under the names of Hugging Face that `place` gives; those for which it
    /// gives none are left out.
    pub(super) fn of_gguf(
        file: GgufFile,
        place: &dyn Fn(&str) -> Option<(String, RowOrder)>,
    ) -> Result<Self> {
        let GgufFile { path, file, map, header } = file;
        let mut entries = BTreeMap::new();
        for TensorInfo { name, shape, kind, bytes } in header.tensors {
            let Some((tensor, order)) = place(&name) else { continue };
            let (dtype, step) = (Stored::Gguf(kind, order), OnceLock::new());
            let entry = Entry { dtype, shape, bytes, checked: None, step };
            if entries.insert(tensor.clone(), entry).is_some() {
                return Err(Error::DuplicateTensor { path, tensor });
            }
        }
        Ok(Self { path, file: Some(file), map, entries })
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

    /// Gives tensors other names.
    ///
    /// # Errors
    /// If two get the same one.
    pub(super) fn rename(&mut self, name: &dyn Fn(&str) -> String) -> Result<()> {
        for (old, entry) in std::mem::take(&mut self.entries) {
            let tensor = name(&old);
            if self.entries.insert(tensor.clone(), entry).is_some() {
                return Err(Error::DuplicateTensor { path: self.path.clone(), tensor });
            }
        }
        Ok(())
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The shape of a tensor of the file.
    pub(super) fn shape(&self, name: &str) -> &[usize] {
        &self.entries[name].shape
    }

    /// Each tensor's name, number format and count of elements.
    pub(super) fn formats(&self) -> impl Iterator<Item = (&str, String, u64)> {
        let values = |entry: &Entry| entry.shape.iter().map(|&size| size as u64).product();
        self.entries.iter().map(move |(name, entry)| (&name[..], entry.dtype.to_string(), values(entry)))
    }

    /// Checks the shape and number format of a tensor of the file, floats or strips, and records that they
    /// are right.
    pub(super) fn check(&mut self, spec: &TensorSpec, strips: Option<Format>) -> Result<()> {
        self.compare(spec, strips)?;
        let entry = self.entries.get_mut(&spec.name).expect("a tensor that is there");
        entry.checked = Some(Checked { shape: spec.shape.clone(), strips });
        Ok(())
    }

    /// The entry of a tensor that was checked to be `spec`, and the format of its strips.
    fn checked(&self, spec: &TensorSpec) -> Result<(&Entry, Option<Format>)> {
        let entry = &self.entries[&spec.name];
        match &entry.checked {
            Some(checked) if checked.shape == spec.shape => Ok((entry, checked.strips)),
            _ => Err(Error::Shape {
                path: self.path.clone(),
                tensor: spec.name.clone(),
                expected: spec.shape.clone(),
                found: entry.shape.clone(),
            }),
        }
    }

    fn compare(&self, spec: &TensorSpec, strips: Option<Format>) -> Result<()> {
        let Entry { dtype, shape, .. } = &self.entries[&spec.name];
        let (path, tensor) = (self.path.clone(), spec.name.clone());
        if strips == Some(Format::Ternary) {
            // What transformers saves of ternary weights that it has unpacked; blocks of GGUF.
            if *shape == spec.shape && (dtype.is_float() || matches!(dtype, Stored::Gguf(..))) {
                return Ok(());
            }
            if bitnet::packed_shape(spec).is_none() {
                return Err(bitnet::not_in_quarters(&self.path, spec));
            }
        }
        let expected = match strips {
            Some(format) => Layout::new(spec, format).shape(spec),
            None => spec.shape.clone(),
        };
        if *shape != expected {
            return Err(Error::Shape { path, tensor, expected, found: shape.clone() });
        }
        let expected = match (strips, dtype) {
            (None, dtype) if dtype.is_float() => return Ok(()),
            (None, Stored::Gguf(..)) | (Some(_), Stored::Dtype(Dtype::U8)) => return Ok(()),
            (None, _) => "F32, F16 or BF16",
            (Some(_), _) => "U8, as quantization_config in config.json says",
        };
        Err(Error::NumberFormat { path, tensor, found: dtype.to_string(), expected })
    }

    /// Whether a tensor is one of a GGUF file.
    pub(super) fn is_gguf(&self, spec: &TensorSpec) -> bool {
        matches!(self.entries[&spec.name].dtype, Stored::Gguf(..))
    }

    /// The bytes of a checked ternary tensor, if it is packed.
    pub(super) fn packed(&self, spec: &TensorSpec) -> Result<Option<&[u8]>> {
        let (Entry { dtype, bytes, .. }, _) = self.checked(spec)?;
        Ok((*dtype == Stored::Dtype(Dtype::U8)).then(|| &self.map.bytes()[bytes.clone()]))
    }

    /// The format in which a tensor without strips is computed with unless another is asked for.
    pub(super) fn own_format(&self, spec: &TensorSpec) -> Format {
        let entry = &self.entries[&spec.name];
        match entry.dtype {
            Stored::Dtype(Dtype::BF16) => Format::Bf16,
            Stored::Dtype(_) => Format::F32, // F16 is widened
            Stored::Gguf(..) if spec.is_in_layer() && self.step_of_all(spec).is_some() => Format::Ternary,
            Stored::Gguf(kind, _) => nearest_format(kind, spec),
        }
    }

    /// A matrix of codes of a GGUF file that are whole numbers times the scale of their block.
    pub(super) fn coded(&self, spec: &TensorSpec) -> Option<Coded> {
        let Entry { dtype: Stored::Gguf(kind, order), bytes, shape, .. } = &self.entries[&spec.name] else {
            return None;
        };
        let (&[rows, in_features], Some(bits)) = (&shape[..], kind.code_bits()) else { return None };
        Some(Coded { kind: *kind, bits, order: *order, start: bytes.start, rows, in_features })
    }

    /// The one step of a ternary matrix of a GGUF file, if it has one. It is looked for once.
    pub(super) fn step_of_all(&self, spec: &TensorSpec) -> Option<f32> {
        let Entry { bytes, step, .. } = &self.entries[&spec.name];
        *step.get_or_init(|| self.coded(spec)?.step_of_all(&self.map.bytes()[bytes.clone()]))
    }

    /// The format of a tensor of a GGUF file.
    pub(super) fn gguf_type(&self, spec: &TensorSpec) -> Option<TensorType> {
        match self.entries[&spec.name].dtype {
            Stored::Gguf(kind, _) => Some(kind),
            Stored::Dtype(_) => None,
        }
    }

    /// Whether a checked tensor runs from the mapped file, in its own format.
    pub(super) fn is_mapped(&self, spec: &TensorSpec) -> bool {
        let Entry { dtype, checked, .. } = &self.entries[&spec.name];
        checked.as_ref().is_some_and(|checked| checked.strips.is_some())
            || dtype.is(Dtype::F32, TensorType::F32)
            || dtype.is(Dtype::BF16, TensorType::BF16)
    }

    /// A checked tensor as it lies in the file, if it can be computed with in that form. All its values, or
    /// their scales, are finite.
    pub(super) fn mapped(&self, spec: &TensorSpec) -> Result<Option<Mapped>> {
        let (Entry { dtype, bytes, .. }, strips) = self.checked(spec)?;
        let mapped = Mapped { map: Arc::clone(&self.map), bytes: bytes.clone() };
        let fault = match (strips.and_then(Format::strips), dtype) {
            (Some(format), _) => finite::first_scale_not_finite(format, mapped.bytes(), spec.shape[1]),
            (None, dtype) if dtype.is(Dtype::F32, TensorType::F32) => {
                match bytemuck::try_cast_slice(mapped.bytes()) {
                    Ok(values) => finite::first_not_finite(values),
                    Err(_) => return Ok(None), // not aligned
                }
            }
            (None, dtype) if dtype.is(Dtype::BF16, TensorType::BF16) => {
                match bytemuck::try_cast_slice(mapped.bytes()) {
                    Ok(values) => finite::first_not_finite_bf16(values),
                    Err(_) => return Ok(None),
                }
            }
            _ => return Ok(None),
        };
        self.finite(spec, fault).map(|()| Some(mapped))
    }

    /// A function that reads the values of a checked tensor. It reads instead of mapping, so that no second
    /// copy of them stays in memory.
    pub(super) fn values(&self, spec: &TensorSpec) -> Result<Box<Values<'_>>> {
        let (Entry { dtype, bytes, .. }, strips) = self.checked(spec)?;
        let (dtype, start) = (*dtype, bytes.start);
        let (format, in_features) =
            (strips.and_then(Format::strips), spec.shape.last().copied().unwrap_or(1));
        let spec = spec.clone();
        Ok(Box::new(move |first, out| {
            match (format, dtype) {
                (Some(format), _) => Strips { format, in_features, start }.unpack(self, first, out)?,
                (None, Stored::Gguf(kind, order)) => {
                    // A vector in another order has a row for each value.
                    let vector = spec.shape.len() == 1 && kind.block() == 1;
                    let in_features = if vector { 1 } else { in_features };
                    Rows { kind, order, in_features, start }.read(self, first, out)?;
                }
                (None, Stored::Dtype(Dtype::F32)) => {
                    self.read_at(bytemuck::cast_slice_mut(out), start + 4 * first)?
                }
                (None, Stored::Dtype(Dtype::F16)) => self.widen(f16_to_f32, start + 2 * first, out)?,
                (None, _) => self.widen(bf16_to_f32, start + 2 * first, out)?,
            }
            let fault = out.iter().position(|value| !value.is_finite());
            self.finite(&spec, fault.map(|index| (first + index, out[index])))
        }))
    }

    /// Bytes of a tensor of the file, from `start` on.
    pub(super) fn bytes_of(&self, name: &str, start: usize, out: &mut [u8]) -> Result<()> {
        self.read_at(out, self.entries[name].bytes.start + start)
    }

    /// Reads two-byte floats, in pieces that stay in the first-level cache.
    fn widen(&self, convert: fn(&[u8], &mut [f32]), start: usize, out: &mut [f32]) -> Result<()> {
        let mut bytes = [0; 1 << 14];
        let piece = bytes.len() / 2;
        for (index, out) in out.chunks_mut(piece).enumerate() {
            let bytes = &mut bytes[..2 * out.len()];
            self.read_at(bytes, start + 2 * piece * index)?;
            convert(bytes, out);
        }
        Ok(())
    }

    /// Reads bytes of the file. The range was checked to lie within it.
    pub(super) fn read_at(&self, bytes: &mut [u8], start: usize) -> Result<()> {
        #[cfg(unix)]
        if let Some(file) = &self.file {
            let read = std::os::unix::fs::FileExt::read_exact_at(file, bytes, start as u64);
            return read.map_err(|error| Error::read(&self.path, error));
        }
        bytes.copy_from_slice(&self.map.bytes()[start..][..bytes.len()]);
        Ok(())
    }

    pub(super) fn finite(&self, spec: &TensorSpec, fault: Option<(usize, f32)>) -> Result<()> {
        let Some((index, found)) = fault else { return Ok(()) };
        Err(Error::NotFinite { path: self.path.clone(), tensor: spec.name.clone(), index, found })
    }
}

/// Strips of a file.
struct Strips {
    format: StripFormat,
    in_features: usize,
    start: usize, // the byte at which they begin
}

impl Strips {
    /// Reads strips from the one that begins with value `first` on.
    fn unpack(&self, file: &TensorFile, first: usize, out: &mut [f32]) -> Result<()> {
        let (values, bytes) = (STRIP * self.in_features, self.format.strip_bytes(self.in_features));
        let mut strip = vec![0; bytes];
        for (index, out) in out.chunks_mut(values).enumerate() {
            file.read_at(&mut strip, self.start + (first / values + index) * bytes)?;
            strips::unpack(self.format, &strip, self.in_features, out);
        }
        Ok(())
    }
}
