//! Weights from safetensors, one file or shards with an index, without trusting either.

mod file;
mod header;
mod index;
mod map;
mod storage;
#[cfg(test)]
mod tests;

pub use storage::F32Storage;
use storage::first_not_finite;

use crate::config::{Config, TensorSpec};
use crate::error::{Error, Result};
use file::TensorFile;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The one-file form of a model's weights.
pub(crate) const SINGLE: &str = "model.safetensors";
/// What stands beside shards.
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// A buffer that transformers wrote before 4.31; it follows from the config.
const INVERSE_FREQUENCIES: &str = ".rotary_emb.inv_freq";

/// The tensors of a model folder or of one file: mapped, checked against what they should be, and
/// not yet read.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf, // the file, or the folder of the shards
    files: Vec<TensorFile>,
    places: BTreeMap<String, usize>, // tensor name → file
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
    /// misshapen, there twice, of another number format than F32, F16 and BF16, or unexpected.
    pub fn open(folder: &Path, config: &Config) -> Result<Self> {
        let weights = match folder.join(SINGLE) {
            single if single.exists() => Self::single(&single)?,
            _ => Self::shards(folder)?,
        };
        let tied_head = config.tie_word_embeddings.then_some("lm_head.weight");
        let ignored = |name: &str| name.ends_with(INVERSE_FREQUENCIES) || Some(name) == tied_head;
        weights.check(&config.tensors(), &ignored)?;
        Ok(weights)
    }

    /// Opens one safetensors file that should hold exactly the tensors of `specs`.
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
    /// If there is no such tensor, it has another shape, or one of its values is not finite.
    pub fn take(&self, spec: &TensorSpec) -> Result<F32Storage> {
        let file = self.file_of(spec)?;
        let storage = file.values(spec)?;
        file.check_finite(spec, storage.as_slice())?;
        Ok(storage)
    }

    /// The values of one tensor, into a buffer of its length. They are not mapped, so that no second copy of
    /// them stays in memory.
    ///
    /// # Errors
    /// As [`Weights::take`], or if the file cannot be read.
    ///
    /// # Panics
    /// If `values` is not of the tensor's length.
    pub fn read(&mut self, spec: &TensorSpec, values: &mut [f32]) -> Result<()> {
        let place = self.place_of(spec)?;
        let file = &mut self.files[place];
        file.read(spec, values)?;
        file.check_finite(spec, values)
    }

    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(TensorFile::bytes).sum()
    }

    /// The number formats in use, as safetensors calls them, each with its count of values.
    pub fn formats(&self) -> BTreeMap<String, u64> {
        let mut formats = BTreeMap::new();
        for (format, values) in self.files.iter().flat_map(TensorFile::formats) {
            *formats.entry(format).or_default() += values;
        }
        formats
    }

    fn single(path: &Path) -> Result<Self> {
        let mut weights = Self { path: path.to_owned(), files: Vec::new(), places: BTreeMap::new() };
        weights.add(TensorFile::open(path)?)?;
        Ok(weights)
    }

    fn shards(folder: &Path) -> Result<Self> {
        let index = index::read(folder)?;
        let mut weights = Self { path: folder.to_owned(), files: Vec::new(), places: BTreeMap::new() };
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
            self.file_of(spec)?.check(spec)?;
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
        Ok(&self.files[self.place_of(spec)?])
    }

    fn place_of(&self, spec: &TensorSpec) -> Result<usize> {
        let advice = match spec.name.as_str() {
            "lm_head.weight" => "set tie_word_embeddings in config.json if the embedding is the head",
            _ => "check that config.json belongs to these weights",
        };
        match self.places.get(&spec.name) {
            Some(&file) => Ok(file),
            None => {
                let (tensor, shape) = (spec.name.clone(), spec.shape.clone());
                Err(Error::MissingTensor { path: self.path.clone(), tensor, shape, advice })
            }
        }
    }
}
