//! Everything that can go wrong in this room, each in one line that says what to do about it.

use crate::format::Format;
use crate::quoted::quoted;
use crate::tensor::TensorSpec;
use offramp_files::legible;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault in a file, a request that the model cannot serve, or the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read.
    #[error("cannot read {path}: {source}: check that it exists and may be read", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A file or folder could not be written: no space, no permission.
    #[error("cannot write {path}: {source}: {advice}", path = path.display(), advice = write_advice(source))]
    Write {
        /// The file that was to appear.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// A JSON file that is not JSON, or not of the expected form.
    #[error("{path}: {reason}", path = path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A key of a config whose value cannot be used.
    #[error("{path}: {key} is {found}: it must be {expected}", path = path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, with the block it stands in.
        key: String,
        /// Its value.
        found: String,
        /// What it may be, or what to do.
        expected: String,
    },
    /// Ternary weights were asked for the head.
    #[error("a ternary head says nothing worth hearing: give the head int8, int4, bf16 or f32")]
    TernaryHead,
    /// Ternary layers were asked to draft for a model that was not trained to have any.
    #[error("ternary copies of layers draft nothing that is accepted: let them draft in int4 or int8")]
    TernaryDraft,
    /// A format was asked for that ternary layers cannot have.
    #[error("{path}: the layers of a {name} are ternary, not {wanted}: leave the format out, or choose the head's alone", path = path.display())]
    TernaryLayers {
        /// The folder.
        path: PathBuf,
        /// The model's name in the family.
        name: &'static str,
        /// What was asked for.
        wanted: Format,
    },
    /// A model was to be made ternary that was not trained for it.
    #[error("{path}: this model was not trained to be ternary: train one of the bitskip family, or measure the speed alone with --format ternary", path = path.display())]
    NotTernary {
        /// The folder.
        path: PathBuf,
    },
    /// A folder was to be written in a format that only GGUF files have.
    #[error("a folder is never in {wanted}: `offramp export {path} --gguf model.gguf --type {wanted}` writes a file that is", path = quoted(&path.to_string_lossy()))]
    OnlyInFiles {
        /// The model.
        path: PathBuf,
        /// What was asked for.
        wanted: Format,
    },
    /// A format of the head that a folder of ternary layers cannot hold.
    #[error("{path}: the folder of a {name} has a head in f32 or bf16, not {wanted}: narrow it when the model is loaded, with --head-format", path = path.display())]
    PackedHead {
        /// The folder.
        path: PathBuf,
        /// The model's name in the family.
        name: &'static str,
        /// What was asked for.
        wanted: Format,
    },
    /// Packed ternary weights with an invalid code, scale or shape.
    #[error("{path}: tensor {tensor} {reason}", path = path.display(), tensor = legible(tensor))]
    Packed {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// An exit layer that the model does not have.
    #[error("there is no exit layer {found}: this model's are 1 to {layers}")]
    ExitLayer {
        /// What was asked for.
        found: usize,
        /// `num_hidden_layers`
        layers: usize,
    },
    /// A token id beyond the vocabulary.
    #[error(
        "token {token} is not in the model's vocabulary of {vocab_size}: use the tokenizer that the model was \
         trained with"
    )]
    UnknownToken {
        /// The id.
        token: u32,
        /// Ids are below this.
        vocab_size: usize,
    },
    /// A draft head without any token.
    #[error("the shortlist of the draft head is empty: name at least one token")]
    EmptyShortlist,
    /// More positions than the cache has.
    #[error("{positions} positions do not fit a cache of {capacity}: shorten the input or enlarge the cache")]
    CacheFull {
        /// Positions that the cache would hold.
        positions: usize,
        /// Positions that fit.
        capacity: usize,
    },
    /// More positions than a pool has blocks for.
    #[error(
        "{wanted} positions do not fit the {left} that are left of a cache of {capacity}: wait until another text \
             ends, or make a larger cache"
    )]
    PoolFull {
        /// Positions that were asked for, in whole blocks.
        wanted: usize,
        /// Positions that nobody holds or was promised.
        left: usize,
        /// Positions of the whole pool.
        capacity: usize,
    },
    /// A cache for more positions than the machine has memory for.
    #[error("there is no memory for a cache of {positions} positions: ask for fewer tokens")]
    CacheMemory {
        /// Positions that it was to hold.
        positions: usize,
    },
    /// Weights in memory whose length does not fit their shape.
    #[error("{tensor} has {found} values: its shape {shape:?} asks for {expected}", expected = shape.iter().product::<usize>())]
    Length {
        /// The tensor.
        tensor: String,
        /// The shape it should have.
        shape: Vec<usize>,
        /// The values it has.
        found: usize,
    },
    /// A safetensors file that is truncated or inconsistent.
    #[error("{path}: {reason}: the file is damaged or not a safetensors file, copy or export it again", path = path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An index that does not fit its shards.
    #[error("{path}: {reason}", path = path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A file that changed since it was written.
    #[error("{path} is damaged: its {what} is {found}, not {expected} as it was written: use another copy of it", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What differs: length or checksum.
        what: &'static str,
        /// Its length or checksum now.
        found: String,
        /// Its length or checksum when it was written.
        expected: String,
    },
    /// A tensor that is missing.
    #[error("{path}: there is no tensor {tensor} {shape:?}: {advice}", path = path.display(), tensor = legible(tensor))]
    MissingTensor {
        /// The file, or the folder of the shards.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The shape it should have.
        shape: Vec<usize>,
        /// What to do.
        advice: String,
    },
    /// A tensor that the model does not have.
    #[error("{path}: tensor {tensor} {shape} is not part of this model: check that config.json belongs to this file", path = path.display(), tensor = legible(tensor), shape = legible(&format!("{shape:?}")))]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
    },
    /// A tensor that stands in two files, or twice in one header.
    #[error("{path}: tensor {tensor} is there twice: export the model again", path = path.display(), tensor = legible(tensor))]
    DuplicateTensor {
        /// The file in which it came the second time.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
    },
    /// A tensor of another shape than the config asks for.
    #[error(
        "{path}: tensor {tensor} has shape {found}, expected {expected:?}: check that config.json belongs to this file",
        path = path.display(), found = legible(&format!("{found:?}"))
    )]
    Shape {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What the config asks for.
        expected: Vec<usize>,
        /// What the file has.
        found: Vec<usize>,
    },
    /// A tensor in a number format that is not read.
    #[error("{path}: tensor {tensor} is of type {found}: export it as {expected}", path = path.display())]
    NumberFormat {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The format, as safetensors calls it.
        found: String,
        /// What is read in its place.
        expected: &'static str,
    },
    /// Quantized weights where floats are needed.
    #[error("{path}: the weights are {held}: {advice}", path = path.display())]
    Quantized {
        /// The folder or file.
        path: PathBuf,
        /// Their format.
        held: Format,
        /// What to do.
        advice: &'static str,
    },
    /// Weights for which the memory does not suffice.
    #[error("there is no memory for {tensor} of {bytes} bytes: choose a smaller model or a narrower format")]
    WeightMemory {
        /// The tensor.
        tensor: String,
        /// What it needs.
        bytes: u64,
    },
    /// More memory than there is. None of it was taken.
    #[error(
        "{what}: {} GB of memory are needed, and {} GB are available: choose a smaller model, fewer tokens or a \
         narrower format, or free some memory",
        tenths(*needed, u64::div_ceil), tenths(*available, |bytes, unit| bytes / unit)
    )]
    NoMemory {
        /// What needs it.
        what: String,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that this process may still take.
        available: u64,
    },
    /// A folder that exists already and is not replaced.
    #[error("{path} is there already: choose another folder, or remove it", path = path.display())]
    Exists {
        /// The folder.
        path: PathBuf,
    },
    /// A weight that is NaN or infinite.
    #[error("{path}: tensor {tensor} is {found} at index {index}: its training diverged or the file is damaged", path = path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The first such element, in row-major order.
        index: usize,
        /// NaN or an infinity.
        found: f32,
    },
    /// A path without a model.
    #[error("{path}: {reason}: give a model folder (with config.json), or a run folder with model/ or step-NNNNNN/ in it", path = path.display())]
    NoModel {
        /// The path.
        path: PathBuf,
        /// What was found instead.
        reason: String,
    },
    /// A GGUF file that is none, or of a model that does not run here.
    #[error("{path}: {reason}", path = path.display())]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A model of the hub that cannot be had.
    #[error(transparent)]
    Hub(#[from] offramp_hub::Error),
    /// Something else than a model folder.
    #[error("{path}: {found}: {advice}", path = path.display())]
    Foreign {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: String,
        /// The next step.
        advice: String,
    },
    /// A pointer of git-lfs in place of a file.
    #[error("{path} is a git-lfs pointer, which says where the file is, and not the file: run `git lfs pull` in its folder, or download it again", path = path.display())]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },
    /// A tied head that differs from the embedding.
    #[error("{path}: lm_head.weight is not the token embedding, which tie_word_embeddings in config.json says it is: set that to false to run with both, or remove the tensor", path = path.display())]
    NotTied {
        /// The file, or the folder of the shards.
        path: PathBuf,
    },
    /// A line of a journal that cannot be read.
    #[error("{path}, line {line}: {reason}: restore the line or remove it", path = path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What the parser found.
        reason: String,
    },
}

/// Gigabytes with one decimal, rounded by `round`.
fn tenths(bytes: u64, divide: fn(u64, u64) -> u64) -> String {
    let tenths = divide(bytes, 100_000_000);
    format!("{}.{}", tenths / 10, tenths % 10)
}

impl Error {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }

    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn json(path: &Path, reason: impl Into<String>) -> Self {
        Self::Json { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn safetensors(path: &Path, reason: impl Into<String>) -> Self {
        Self::Safetensors { path: path.to_owned(), reason: legible(&reason.into()) }
    }

    /// The error of a tensor for which there is no memory.
    pub(crate) fn memory(spec: &TensorSpec, bytes: u64) -> Self {
        Self::WeightMemory { tensor: spec.name.clone(), bytes }
    }

    /// The error of a tensor in memory of the wrong length.
    pub(crate) fn wrong_length(spec: &TensorSpec, found: usize) -> Self {
        Self::Length { tensor: spec.name.clone(), shape: spec.shape.clone(), found }
    }
}

/// Opens a regular file for reading. A pipe is refused: reading it could wait forever.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    File::open(path)
}

fn write_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or choose another disk"
        }
        _ => "check that the folder exists and may be written",
    }
}
