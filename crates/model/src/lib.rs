//! What a model *is*: its config, its weights, its layers, its cache, and the folder it is kept in.
//!
//! A checkpoint is a Hugging Face folder of the `llama` architecture, so that stock `transformers`
//! reads what this room writes and the other way round. Files are not trusted: whatever they claim is
//! checked against their length and against the config before anything is allocated for it.
//!
//! One forward runs the model at every depth, [`Llama::forward`] over a range of layers, and one head
//! reads it out, [`Llama::head`]. Nothing here chooses a token, loops over them, or reads text.

// Weights are read and written as the bytes that they are in memory.
#[cfg(target_endian = "big")]
compile_error!("safetensors are little-endian: this room would have to swap bytes to run here");

mod attention;
mod batch;
mod block_pool;
pub mod checkpoint;
mod config;
mod cost;
mod draft_head;
mod draft_layers;
mod error;
mod exit_adapters;
mod foreign;
mod format;
mod gguf;
mod hidden;
pub mod hub;
pub mod journal;
mod kv_cache;
mod layer;
mod layout;
mod linear;
mod llama;
pub mod memory;
mod norm;
mod quoted;
mod rope;
pub mod run_folder;
mod scratch;
mod source;
mod storage;
mod tensor;
mod ternary;
mod text_file;
mod weights;
mod work;

pub use batch::Batch;
pub use block_pool::BlockPool;
pub use config::{
    BitLinear, Config, EarlyExit, Family, LayerAttention, LayerTensor, ModelType, Quantization,
    RopeParameters, RopeScaling, SlidingWindow, WeightScale, Yarn,
};
pub use draft_head::DraftHead;
pub use draft_layers::DraftLayers;
pub use error::{Error, Result};
pub use exit_adapters::exit_adapter_tensors;
pub use format::{CacheFormat, Format, Formats, UnknownFormat};
pub use gguf::Gguf;
pub use hidden::Hidden;
pub use kv_cache::KvCache;
pub use llama::Llama;
pub use offramp_files::{legible, one_line};
pub use offramp_kernels::attend::BLOCK as BLOCK_POSITIONS;
pub use quoted::quoted;
pub use rope::Rope;
pub use scratch::Scratch;
pub use source::Damped;
pub use storage::Storage;
pub use tensor::{TensorKind, TensorSpec};
pub use text_file::read_text;
pub use weights::{Kept, Runs, Weights};
pub use work::Work;
