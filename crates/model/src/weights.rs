//! Weights from safetensors, one file or shards with an index, without trusting either.

pub(crate) mod bitnet;
mod file;
mod finite;
mod header;
mod index;
mod layout;
mod map;
mod storage;
#[cfg(test)]
mod tests;

pub(crate) use layout::Layout;
pub(crate) use map::Pages;
pub(crate) use storage::Mapped;
pub use storage::Storage;

use crate::config::{Config, HEAD, TensorSpec, WeightScale};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::source::{Source, Values, storage};
use crate::ternary::Codes;
use file::TensorFile;
use offramp_kernels::rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The one-file form of a model's weights.
pub(crate) const SINGLE: &str = "model.safetensors";
/// What stands beside shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Values that one thread reads before it asks for more.
const PIECE: usize = 1 << 16;
/// A buffer that transformers wrote before 4.31; it follows from the config.
const INVERSE_FREQUENCIES: &str = ".rotary_emb.inv_freq";

/// The tensors of a model folder or of one file: mapped, checked against what they should be, and
/// not yet read.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf, // the file, or the folder of the shards
    files: Vec<TensorFile>,
    places: BTreeMap<String, usize>,            // tensor name → file
    quantized: BTreeMap<String, (Format, u64)>, // tensor name → what its strips are, how many values
    weight_scale: Option<WeightScale>,          // beside ternary tensors
}

impl Weights {
    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`, and checks that
    /// they hold exactly the tensors of `config`. Nothing is allocated for the values.
    ///
    /// Ignored are the head of a tied model, which the embedding is, and the `rotary_emb.inv_freq`
    /// buffers of old checkpoints.
    ///
    /// # Errors
    /// If a file is missing, truncated or lies, an index points elsewhere, or a tensor is missing,
    /// misshapen, there twice, of another number format than F32, F16, BF16 or the strips that the config
    /// speaks of, or unexpected.
    pub fn open(folder: &Path, config: &Config) -> Result<Self> {
        let weights = match folder.join(SINGLE) {
            single if single.exists() => Self::single(&single)?,
            _ => Self::shards(folder)?,
        };
        weights.of_model(config)
    }

    /// As [`Weights::open`], of the bytes of a `model.safetensors` that a program carries; `origin` names them in
    /// errors.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn from_bytes(bytes: &'static [u8], origin: &Path, config: &Config) -> Result<Self> {
        let mut weights = Self::nothing(origin);
        weights.add(TensorFile::given(origin, bytes)?)?;
        weights.of_model(config)
    }

    /// Checks that these are the weights of a model.
    fn of_model(mut self, config: &Config) -> Result<Self> {
        let mut specs = config.tensors();
        if let Some(quantization) = &config.quantization {
            if config.tie_word_embeddings && !quantization.head.is_float() {
                specs.push(config.head_tensor());
            }
            let quantized = specs.iter().filter_map(|spec| Some((spec, quantization.format(spec)?)));
            let quantized = quantized.map(|(spec, format)| (spec.name.clone(), (format, spec.len() as u64)));
            self.quantized = quantized.collect();
            self.weight_scale = quantization.weight_scale;
            if self.weight_scale.is_some() {
                specs.extend(
                    specs.clone().iter().filter(|spec| self.strips(spec).is_some()).map(bitnet::scale),
                );
            }
        }
        let tied_head = config.tie_word_embeddings.then_some(HEAD);
        let ignored = |name: &str| name.ends_with(INVERSE_FREQUENCIES) || Some(name) == tied_head;
        self.check(&specs, &ignored)?;
        Ok(self)
    }

    /// Opens one safetensors file that should hold exactly the tensors of `specs`, as floats.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_file(path: &Path, specs: &[TensorSpec]) -> Result<Self> {
        let weights = Self::single(path)?;
        weights.check(specs, &|_| false)?;
        Ok(weights)
    }

    /// The values of one tensor: mapped where the file has aligned `f32`, else widened.
    ///
    /// # Errors
    /// If there is no such tensor, it has another shape, is quantised, or one of its values is not finite.
    pub fn take(&self, spec: &TensorSpec) -> Result<Storage<f32>> {
        self.refuse_quantized(spec)?;
        storage(&mut { self }, spec, Format::F32)
    }

    /// The values of one tensor, into a buffer of its length. They are not mapped, so that no second copy of
    /// them stays in memory.
    ///
    /// # Errors
    /// As [`Weights::take`], or if the file cannot be read.
    ///
    /// # Panics
    /// If `values` is not of the tensor's length.
    pub fn read(&self, spec: &TensorSpec, values: &mut [f32]) -> Result<()> {
        assert_eq!(values.len(), spec.len(), "a buffer of the tensor's length");
        self.refuse_quantized(spec)?;
        let file = self.file_of(spec)?.values(spec, None)?;
        let pieces = values.par_chunks_mut(PIECE).enumerate();
        let failed = pieces.map(|(index, values)| file(index * PIECE, values));
        failed.find_map_first(Result::err).map_or(Ok(()), Err)
    }

    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(TensorFile::bytes).sum()
    }

    /// The number formats in use, as safetensors calls them, and INT8 and INT4 for strips, TERNARY for packed codes;
    /// each with its count of values.
    pub fn formats(&self) -> BTreeMap<String, u64> {
        let mut formats = BTreeMap::new();
        for (name, format, values) in self.files.iter().flat_map(TensorFile::formats) {
            let (format, values) = match self.quantized.get(name) {
                Some((format, values)) => (format.name().to_uppercase(), *values),
                None => (format, values),
            };
            *formats.entry(format).or_default() += values;
        }
        formats
    }

    /// A tensor's bytes as the file has them, from `start` on.
    ///
    /// # Errors
    /// If there is no such tensor, or the file cannot be read.
    pub(crate) fn bytes_of(&self, spec: &TensorSpec, start: usize, bytes: &mut [u8]) -> Result<()> {
        self.file_of(spec)?.bytes_of(&spec.name, start, bytes)
    }

    /// The error of a matrix that cannot be packed.
    pub(crate) fn not_in_quarters(&self, spec: &TensorSpec) -> Error {
        bitnet::not_in_quarters(&self.path, spec)
    }

    fn refuse_quantized(&self, spec: &TensorSpec) -> Result<()> {
        let Some(held) = self.strips(spec) else { return Ok(()) };
        let advice = "take the float model that they were made from, or `offramp quantize --to bf16`";
        Err(Error::Quantized { path: self.path.clone(), held, advice })
    }

    fn strips(&self, spec: &TensorSpec) -> Option<Format> {
        self.quantized.get(&spec.name).map(|(format, _)| *format)
    }

    fn nothing(path: &Path) -> Self {
        let (places, quantized) = (BTreeMap::new(), BTreeMap::new());
        Self { path: path.to_owned(), files: Vec::new(), places, quantized, weight_scale: None }
    }

    fn single(path: &Path) -> Result<Self> {
        let mut weights = Self::nothing(path);
        weights.add(TensorFile::open(path)?)?;
        Ok(weights)
    }

    fn shards(folder: &Path) -> Result<Self> {
        let index = index::read(folder)?;
        let mut weights = Self::nothing(folder);
        for (shard, promised) in &index.shards {
            let file = TensorFile::open(&folder.join(shard))?;
            index.check(shard, promised, &file)?;
            weights.add(file)?;
        }
        Ok(weights)
    }

    fn add(&mut self, file: TensorFile) -> Result<()> {
        for name in file.names() {
            if self.places.insert(name.to_owned(), self.files.len()).is_some() {
                let (path, tensor) = (file.path().to_owned(), name.to_owned());
                return Err(Error::DuplicateTensor { path, tensor });
            }
        }
        self.files.push(file);
        Ok(())
    }

    fn check(&self, specs: &[TensorSpec], ignored: &dyn Fn(&str) -> bool) -> Result<()> {
        let mut unmet = self.places.clone();
        for spec in specs {
            self.file_of(spec)?.check(spec, self.strips(spec))?;
            unmet.remove(&spec.name);
        }
        match unmet.iter().find(|(name, _)| !ignored(name)) {
            None => Ok(()),
            Some((name, &file)) => {
                let file = &self.files[file];
                let (path, tensor) = (file.path().to_owned(), name.clone());
                Err(Error::UnexpectedTensor { path, tensor, shape: file.shape(name).to_vec() })
            }
        }
    }

    fn file_of(&self, spec: &TensorSpec) -> Result<&TensorFile> {
        let advice = match spec.name.as_str() {
            HEAD => "set tie_word_embeddings in config.json if the embedding is the head",
            _ => "check that config.json belongs to these weights",
        };
        match self.places.get(&spec.name) {
            Some(&file) => Ok(&self.files[file]),
            None => {
                let (tensor, shape) = (spec.name.clone(), spec.shape.clone());
                Err(Error::MissingTensor { path: self.path.clone(), tensor, shape, advice })
            }
        }
    }
}

impl Source for &Weights {
    fn format(&self, spec: &TensorSpec) -> Result<Format> {
        let file = self.file_of(spec)?;
        Ok(self.strips(spec).unwrap_or_else(|| file.float_format(spec)))
    }

    fn is_mapped(&self) -> bool {
        true
    }

    fn mapped(&self, spec: &TensorSpec) -> Result<Option<Mapped>> {
        self.file_of(spec)?.mapped(spec, self.strips(spec))
    }

    fn values(&mut self, spec: &TensorSpec) -> Result<Box<Values<'_>>> {
        if self.strips(spec) == Some(Format::Ternary) {
            // Floats that give these codes and this step again.
            let codes = self.ternary(spec)?;
            let magnitude = codes.magnitude();
            return Ok(Box::new(move |first, out| {
                let codes = &codes.codes[first..];
                out.iter_mut().zip(codes).for_each(|(out, &code)| *out = f32::from(code) * magnitude);
                Ok(())
            }));
        }
        self.file_of(spec)?.values(spec, self.strips(spec))
    }

    fn ternary(&mut self, spec: &TensorSpec) -> Result<Codes> {
        match (self.strips(spec), self.weight_scale) {
            (Some(Format::Ternary), Some(meaning)) => {
                let scale = bitnet::scale(spec);
                let step = self.file_of(&scale)?.step(&scale, meaning)?;
                Ok(Codes { codes: self.file_of(spec)?.codes(spec)?, step })
            }
            _ => Codes::of(&*self.file_of(spec)?.values(spec, self.strips(spec))?, spec),
        }
    }
}
