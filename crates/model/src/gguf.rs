//! A model as a GGUF file: llama.cpp's keys, its names, its order of rows.

mod config;
mod file;
mod names;
pub(crate) mod rope;
mod scaling;

pub(crate) use config::BITNET;
pub use file::Gguf;
pub(crate) use file::{GgufFile, gguf};
pub(crate) use names::{EARLY_EXIT, ROPE_FREQS, ROPE_SCALING, RowOrder, llama_cpp, nearest_format, places};
pub(crate) use scaling::scaling_keys;
