//! Weights from safetensors, one file or shards with an index. Neither is trusted.

pub(crate) mod bitnet;
mod file;
mod finite;
mod gguf_rows;
mod header;
mod index;
mod names;
mod runs;
mod ternary;
#[cfg(test)]
mod tests;

pub(crate) use index::shard_names;
pub use runs::{Kept, Runs};

use crate::config::{Config, WeightScale, blamed};
use crate::error::{Error, Result};
use crate::format::Format;
use crate::gguf::{Gguf, places};
use crate::layout::Values;
use crate::run_folder::{CONFIG, WEIGHTS};
use crate::source::{Source, storage};
use crate::storage::{Mapped, Storage};
use crate::tensor::{EMBEDDING, HEAD, TensorSpec};
use crate::ternary::Codes;
use file::TensorFile;
use names::Names;
use offramp_files::legible;
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::strips::StripFormat;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Values that a thread reads at a time.
const PIECE: usize = 1 << 16;

/// The tensors of a model folder or of one file: mapped, checked against the specs, and not read yet.
#[derive(Debug)]
pub struct Weights {
    path: PathBuf, // the file, or the folder of the shards
    files: Vec<TensorFile>,
    places: BTreeMap<String, usize>,            // tensor name → file
    quantized: BTreeMap<String, (Format, u64)>, // tensor name → what its strips are, how many values
    weight_scale: Option<WeightScale>,          // beside ternary tensors
    gguf: bool,
}

impl Weights {
    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`, and checks that
    /// they hold exactly the tensors of `config`. Nothing is allocated for the values.
    ///
    /// Names may lack their `model.` or have it twice, as `transformers` reads them. A tied model may hold
    /// its head alone. The head of a tied model beside its embedding must be a copy of it. The `rotary_emb`
    /// buffers of old checkpoints are ignored.
    ///
    /// # Errors
    /// If a file is missing, truncated or inconsistent, or an index names files elsewhere; if a tensor is
    /// missing, comes twice, is unexpected, or has another shape or number format than the config asks for;
    /// or if a tied head is not the embedding.
    pub fn open(folder: &Path, config: &Config) -> Result<Self> {
        let weights = match folder.join(WEIGHTS) {
            single if single.exists() => Self::single(&single)?,
            _ => Self::shards(folder, &Names::of(&Self::specs(config)))?,
        };
        weights.of_model(config).map_err(|error| blamed(error, &folder.join(CONFIG)))
    }

    /// As [`Weights::open`], of the bytes of a `model.safetensors` that the program carries; `origin` names
    /// them in errors.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn from_bytes(bytes: &'static [u8], origin: &Path, config: &Config) -> Result<Self> {
        let mut weights = Self::nothing(origin);
        weights.add(TensorFile::given(origin, bytes)?)?;
        weights.of_model(config)
    }

    /// As [`Weights::open`], of a GGUF file.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn of_gguf(gguf: Gguf, config: &Config) -> Result<Self> {
        let place = places(config);
        let mut weights = Self { gguf: true, ..Self::nothing(gguf.path()) };
        for file in gguf.into_files() {
            weights.add(TensorFile::of_gguf(file, &place)?)?;
        }
        weights.of_model(config)
    }

    /// The tensors of a model without the scales of packed ones.
    fn specs(config: &Config) -> Vec<TensorSpec> {
        let mut specs = config.tensors();
        if config.tie_word_embeddings && config.quantization.is_some_and(|held| !held.head.is_float()) {
            specs.push(config.head_tensor());
        }
        specs
    }

    /// Checks that these are the weights of a model.
    fn of_model(mut self, config: &Config) -> Result<Self> {
        let mut specs = Self::specs(config);
        if let Some(quantization) = &config.quantization {
            let quantized = specs.iter().filter_map(|spec| Some((spec, quantization.format(spec)?)));
            let quantized = quantized.map(|(spec, format)| (spec.name.clone(), (format, spec.len() as u64)));
            self.quantized = quantized.collect();
            self.weight_scale = quantization.weight_scale;
            if self.weight_scale.is_some() {
                let ternary = specs.iter().filter(|spec| self.strips(spec).is_some());
                // A GGUF file has them in the values.
                let needed = |scale: &TensorSpec| !self.gguf || self.places.contains_key(&scale.name);
                specs.extend(ternary.map(bitnet::scale).filter(needed).collect::<Vec<_>>());
            }
        }
        let names = Names::of(&specs);
        self.rename(&|name| names.canonical(name))?;
        let tied = specs.iter().all(|spec| spec.name != HEAD);
        if tied && self.places.contains_key(HEAD) && !self.places.contains_key(EMBEDDING) {
            self.rename(&|name| if name == HEAD { EMBEDDING } else { name }.to_owned())?;
        }
        self.check(&specs, &|name| names.ignores(name))?;
        if tied && self.places.contains_key(HEAD) {
            self.check_one(&config.head_tensor())?;
            self.check_tied(config)?;
        }
        Ok(self)
    }

    /// Checks that the head beside a tied embedding is a copy of it. If it were not, transformers 4 and 5
    /// would compute different logits.
    fn check_tied(&self, config: &Config) -> Result<()> {
        let head = config.head_tensor();
        let embedding = TensorSpec { name: EMBEDDING.to_owned(), ..head.clone() };
        let head_values = self.file_of(&head)?.values(&head)?;
        let values = self.file_of(&embedding)?.values(&embedding)?;
        let same = |start: usize| {
            let count = PIECE.min(head.len() - start);
            let (mut one, mut other) = (vec![0.0; count], vec![0.0; count]);
            head_values(start, &mut one)?;
            values(start, &mut other)?;
            if one == other { Ok(()) } else { Err(Error::NotTied { path: self.path.clone() }) }
        };
        let pieces = (0..head.len().div_ceil(PIECE)).into_par_iter();
        pieces.map(|piece| same(piece * PIECE)).find_map_first(Result::err).map_or(Ok(()), Err)
    }

    /// Opens one safetensors file that must hold exactly the tensors of `specs`, as floats.
    ///
    /// # Errors
    /// As [`Weights::open`].
    pub fn open_file(path: &Path, specs: &[TensorSpec]) -> Result<Self> {
        let mut weights = Self::single(path)?;
        weights.check(specs, &|_| false)?;
        Ok(weights)
    }

    /// The values of one tensor: mapped if the file has them in aligned `f32`, else converted.
    ///
    /// # Errors
    /// If there is no such tensor, it has another shape or is quantized, or a value is not finite.
    pub fn take(&self, spec: &TensorSpec) -> Result<Storage<f32>> {
        self.refuse_quantized(spec)?;
        storage(self, spec, Format::F32)
    }

    /// Reads the values of one tensor into a buffer of its length. They are not mapped, so that no second
    /// copy of them stays in memory.
    ///
    /// # Errors
    /// As [`Weights::take`], or if the file cannot be read.
    ///
    /// # Panics
    /// If `values` is not of the tensor's length.
    pub fn read(&self, spec: &TensorSpec, values: &mut [f32]) -> Result<()> {
        assert_eq!(values.len(), spec.len(), "a buffer of the tensor's length");
        self.refuse_quantized(spec)?;
        let file = self.file_of(spec)?.values(spec)?;
        let pieces = values.par_chunks_mut(PIECE).enumerate();
        let failed = pieces.map(|(index, values)| file(index * PIECE, values));
        failed.find_map_first(Result::err).map_or(Ok(()), Err)
    }

    /// Each tensor's name and shape.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.places.iter().map(|(name, &file)| (name.as_str(), self.files[file].shape(name)))
    }

    /// The file, or the folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(TensorFile::bytes).sum()
    }

    /// The number formats in use and their numbers of values: the names of safetensors, INT8 and INT4 for
    /// strips, TERNARY for packed codes.
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
        Self { path: path.to_owned(), files: Vec::new(), places, quantized, weight_scale: None, gguf: false }
    }

    pub(crate) fn single(path: &Path) -> Result<Self> {
        let mut weights = Self::nothing(path);
        weights.add(TensorFile::open(path)?)?;
        Ok(weights)
    }

    fn shards(folder: &Path, names: &Names) -> Result<Self> {
        let index = index::read(folder)?;
        let mut weights = Self::nothing(folder);
        for shard in index.shards() {
            let file = TensorFile::open(&folder.join(shard))?;
            index.check(shard, &file, &|name| names.ignores(name))?;
            weights.add(file)?;
        }
        Ok(weights)
    }

    fn add(&mut self, file: TensorFile) -> Result<()> {
        self.files.push(file);
        self.place(self.files.len() - 1)
    }

    /// Records which tensors a file has.
    fn place(&mut self, index: usize) -> Result<()> {
        let file = &self.files[index];
        for name in file.names() {
            if self.places.insert(name.to_owned(), index).is_some() {
                let (path, tensor) = (file.path().to_owned(), name.to_owned());
                return Err(Error::DuplicateTensor { path, tensor });
            }
        }
        Ok(())
    }

    fn rename(&mut self, name: &dyn Fn(&str) -> String) -> Result<()> {
        self.files.iter_mut().try_for_each(|file| file.rename(name))?;
        self.places.clear();
        (0..self.files.len()).try_for_each(|index| self.place(index))
    }

    /// Checks that a tensor is there and what it should be.
    fn check_one(&mut self, spec: &TensorSpec) -> Result<()> {
        self.file_of(spec)?;
        let (file, strips) = (self.places[&spec.name], self.strips(spec));
        self.files[file].check(spec, strips)
    }

    /// Checks that these tensors are there, and no others but the ignored ones. This is done once, when the
    /// files are opened.
    fn check(&mut self, specs: &[TensorSpec], ignored: &dyn Fn(&str) -> bool) -> Result<()> {
        let mut unmet = self.places.clone();
        for spec in specs {
            self.check_one(spec)?;
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
        match self.places.get(&spec.name) {
            Some(&file) => Ok(&self.files[file]),
            None => {
                let (tensor, shape, advice) =
                    (spec.name.clone(), spec.shape.clone(), self.instead(&spec.name));
                Err(Error::MissingTensor { path: self.path.clone(), tensor, shape, advice })
            }
        }
    }

    /// What to do if a tensor is missing.
    fn instead(&self, name: &str) -> String {
        // A wrapper used in training adds `module.` and the like.
        let wrapped = self.places.keys().find(|found| found.ends_with(&format!(".{name}")));
        match (wrapped, name) {
            (Some(found), _) => {
                format!("{} is there, save the model itself and not what wraps it", legible(found))
            }
            (None, HEAD) => "set tie_word_embeddings in config.json if the embedding is the head".to_owned(),
            _ => "check that config.json belongs to these weights".to_owned(),
        }
    }
}

impl Source for Weights {
    fn format(&self, spec: &TensorSpec) -> Result<Format> {
        let file = self.file_of(spec)?;
        // Beside ternary layers embedding and head are floats, as in a folder, also where GGUF has codes.
        let of_floats = |format: Format| match self.weight_scale {
            Some(_) if !format.is_float() => Format::Bf16,
            _ => format,
        };
        Ok(self.strips(spec).unwrap_or_else(|| of_floats(file.own_format(spec))))
    }

    fn is_mapped(&self, spec: &TensorSpec) -> bool {
        self.file_of(spec).is_ok_and(|file| file.is_mapped(spec))
    }

    fn recode(&self, spec: &TensorSpec, format: StripFormat, out: &mut [u8]) -> Result<bool> {
        let file = self.file_of(spec)?;
        match file.coded(spec).filter(|coded| coded.fits(format)) {
            Some(coded) => coded.pack(file, spec, format, out).map(|()| true),
            None => Ok(false),
        }
    }

    fn mapped(&self, spec: &TensorSpec) -> Result<Option<Mapped>> {
        self.file_of(spec)?.mapped(spec)
    }

    fn values(&self, spec: &TensorSpec) -> Result<Box<Values<'_>>> {
        if self.strips(spec) == Some(Format::Ternary) {
            // Floats that are rounded to the same codes and step.
            let codes = self.ternary(spec)?;
            let magnitude = codes.magnitude();
            return Ok(Box::new(move |first, out| {
                let codes = &codes.codes[first..];
                out.iter_mut().zip(codes).for_each(|(out, &code)| *out = f32::from(code) * magnitude);
                Ok(())
            }));
        }
        self.file_of(spec)?.values(spec)
    }

    fn ternary(&self, spec: &TensorSpec) -> Result<Codes> {
        match (self.strips(spec), self.weight_scale) {
            (Some(Format::Ternary), Some(_)) if self.file_of(spec)?.is_gguf(spec) => {
                let scale = Some(bitnet::scale(spec)).filter(|scale| self.places.contains_key(&scale.name));
                self.file_of(spec)?.ternary_values(spec, scale.as_ref())
            }
            (Some(Format::Ternary), Some(meaning)) => {
                let scale = bitnet::scale(spec);
                let step = self.file_of(&scale)?.step(&scale, meaning)?;
                Ok(Codes { codes: self.file_of(spec)?.codes(spec)?, step })
            }
            _ => {
                let file = self.file_of(spec)?;
                match (file.coded(spec), file.step_of_all(spec)) {
                    (Some(coded), Some(step)) => coded.ternary(file, spec, step),
                    _ => Codes::of(&*file.values(spec)?, spec),
                }
            }
        }
    }
}
