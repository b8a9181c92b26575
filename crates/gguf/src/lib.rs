//! The GGUF container, versions 2 and 3, and the codecs of its blocks.
//!
//! [`Header::parse`] reads the metadata and the list of tensors from a file's bytes. [`TensorType::decode`]
//! turns a tensor's bytes into floats, which are those of `gguf`'s Python package, bit for bit. [`write()`]
//! makes a file.
//!
//! Nothing here knows a model. No length of a file is trusted: what is allocated is at most eight times the
//! bytes that are there.

mod blocks;
mod header;
mod reader;
mod tensor;
mod value;
mod write;

pub use header::{Header, TensorInfo};
pub use tensor::TensorType;
pub use value::Value;
pub use write::{NewTensor, Placed, write};

/// Where the values of tensors begin, unless the key `general.alignment` says otherwise.
pub const ALIGNMENT: u64 = 32;

/// What a file is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It does not begin with the letters `GGUF`.
    #[error("it does not begin as GGUF files do")]
    Magic,
    /// A version that nobody has described, or the first, which nobody writes.
    #[error("it is of version {0}: versions 2 and 3 are read")]
    Version(u32),
    /// A file of a machine that writes the last byte first.
    #[error("its numbers are big-endian: convert it with gguf-convert-endian of PyPI's gguf")]
    BigEndian,
    /// It ends too early.
    #[error("it ends in the middle of {0}: the download is not whole, do it again")]
    Truncated(String),
    /// It says something that cannot be.
    #[error("{0}")]
    Malformed(String),
    /// A number format that is not decoded.
    #[error("tensor {tensor} is in {name}, which is not decoded: take the model in {known}", known = TensorType::names())]
    Type {
        /// The tensor.
        tensor: String,
        /// The format's name, or its number.
        name: String,
    },
}

/// What this room's functions return.
pub type Result<T> = std::result::Result<T, Error>;
