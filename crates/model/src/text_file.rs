//! Small text files, read whole.

use crate::error::{Error, Result, open_regular};
use std::io::Read;
use std::path::Path;

/// How a pointer of git-lfs begins. It stands in place of a file that was not fetched.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";

/// Whether these bytes are such a pointer.
pub(crate) fn is_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(POINTER)
}

/// The largest file that [`read_text`] reads.
const LONGEST: u64 = 16 << 20;

/// Reads a small text file of a model's folder, such as `config.json`.
///
/// # Errors
/// If it cannot be read, is longer than 16 MiB, is not UTF-8, or is a pointer of git-lfs.
pub fn read_text(path: &Path) -> Result<String> {
    read(path, LONGEST)
}

/// Reads a text file of at most `most` bytes.
///
/// # Errors
/// If it cannot be read, is longer, is not UTF-8, or is a pointer of git-lfs.
pub(crate) fn read(path: &Path, most: u64) -> Result<String> {
    let mut bytes = Vec::new();
    let file = open_regular(path).map_err(|error| Error::read(path, error))?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| Error::read(path, error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if is_pointer(&bytes) {
        return Err(Error::LfsPointer { path: path.to_owned() });
    }
    if bytes.len() as u64 > most {
        return Err(Error::json(path, format!("larger than {most} bytes: this is no {name}")));
    }
    if bytes.is_empty() {
        return Err(Error::json(path, "it is empty: copy or download it again"));
    }
    let not_utf8 =
        |byte: usize| format!("byte {byte} is not valid UTF-8: save it as UTF-8, or copy it again");
    String::from_utf8(bytes).map_err(|error| Error::json(path, not_utf8(error.utf8_error().valid_up_to())))
}
