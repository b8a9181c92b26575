//! A GGUF file, mapped, with its header; and the parts of one that is split.

use crate::error::{Error, Result, open_regular};
use crate::storage::Map;
use crate::text_file::is_pointer;
use offramp_files::one_line;
use offramp_gguf::Header;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A file, mapped, and its header.
#[derive(Debug)]
pub(crate) struct GgufFile {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
    pub(crate) map: Arc<Map>,
    pub(crate) header: Header,
}

/// A model's file with its metadata, and the other parts if it is split.
#[derive(Debug)]
pub struct Gguf {
    files: Vec<GgufFile>, // the first has the metadata
}

impl GgufFile {
    fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::read(path, error);
        let file = open_regular(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            return Err(gguf(path, "it is empty")); // and cannot be mapped
        }
        let map = Map::new(&file).map_err(failed)?;
        if is_pointer(map.bytes()) {
            return Err(Error::LfsPointer { path: path.to_owned() });
        }
        let header = Header::parse(map.bytes()).map_err(|error| gguf(path, &error.to_string()))?;
        Ok(Self { path: path.to_owned(), file, map: Arc::new(map), header })
    }
}

impl Gguf {
    /// Whether a path means such a file.
    pub fn is_one(path: &Path) -> bool {
        path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) && path.is_file()
    }

    /// Opens a file, and with the first of a split file all others beside it.
    ///
    /// # Errors
    /// If one cannot be read, is no GGUF, or is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let first = GgufFile::open(path)?;
        let count = |key: &str| first.header.get(key).and_then(offramp_gguf::Value::as_u64);
        let (parts, number) = (count("split.count").unwrap_or(1), count("split.no").unwrap_or(0));
        if parts <= 1 {
            return Ok(Self { files: vec![first] });
        }
        let end = |part: u64| format!("-{:05}-of-{parts:05}.gguf", part.saturating_add(1));
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(&end(number)) else {
            let reason = format!("it is one part of {parts}, and its name does not end in {}", end(number));
            return Err(gguf(path, &reason));
        };
        let files =
            (0..parts).map(|part| GgufFile::open(&path.with_file_name(format!("{stem}{}", end(part)))));
        Ok(Self { files: files.collect::<Result<_>>()? })
    }

    /// Every key of the metadata.
    pub fn header(&self) -> &Header {
        &self.files[0].header
    }

    /// The (first) file.
    pub fn path(&self) -> &Path {
        &self.files[0].path
    }

    /// A tensor of one of the files.
    pub(super) fn tensor(&self, name: &str) -> Option<(&GgufFile, &offramp_gguf::TensorInfo)> {
        let find = |file: &'_ GgufFile| file.header.tensors.iter().position(|tensor| tensor.name == name);
        self.files.iter().find_map(|file| Some((file, &file.header.tensors[find(file)?])))
    }

    /// The values of a short tensor.
    pub(super) fn values(&self, name: &str) -> Option<Vec<f32>> {
        let (file, tensor) = self.tensor(name)?;
        let mut values = vec![0.0; tensor.shape.iter().product()];
        tensor.kind.decode(&file.map.bytes()[tensor.bytes.clone()], &mut values);
        Some(values)
    }

    /// The files, the first with the metadata.
    pub(crate) fn into_files(self) -> Vec<GgufFile> {
        self.files
    }
}

/// The error for a file; the reason may quote what it says.
pub(crate) fn gguf(path: &Path, reason: &str) -> Error {
    Error::Gguf { path: path.to_owned(), reason: one_line(reason) }
}
