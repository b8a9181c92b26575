//! Rust's errors as Python's own kinds of exceptions, each with one line.

use pyo3::exceptions::{
    PyFileExistsError, PyFileNotFoundError, PyIsADirectoryError, PyMemoryError, PyNotADirectoryError,
    PyOSError, PyPermissionError, PyRuntimeError, PyValueError,
};
use pyo3::{PyErr, PyResult};
use std::error::Error;
use std::io;

/// The exception for an error: of the file system where its cause is, `MemoryError` where memory lacks,
/// `RuntimeError` where the model or the disk failed, and `ValueError` for everything that the caller can
/// mend.
pub(crate) fn exception(error: &(dyn Error + 'static)) -> PyErr {
    let line = one_line(error);
    if let Some(cause) = causes(error).find_map(|cause| cause.downcast_ref::<io::Error>()) {
        return of_files(cause, line);
    }
    if causes(error).any(lacks_memory) {
        return PyMemoryError::new_err(line);
    }
    if causes(error).any(misses_a_file) {
        return PyFileNotFoundError::new_err(line);
    }
    if causes(error).any(would_replace) {
        return PyFileExistsError::new_err(line);
    }
    match causes(error).any(is_failure) {
        true => PyRuntimeError::new_err(line),
        false => PyValueError::new_err(line),
    }
}

/// The result of another room as Python's.
pub(crate) trait OrRaise<T> {
    /// Raises the error's exception.
    fn or_raise(self) -> PyResult<T>;
}

impl<T, E: Error + 'static> OrRaise<T> for Result<T, E> {
    fn or_raise(self) -> PyResult<T> {
        self.map_err(|error| exception(&error))
    }
}

fn of_files(cause: &io::Error, line: String) -> PyErr {
    match cause.kind() {
        io::ErrorKind::NotFound => PyFileNotFoundError::new_err(line),
        io::ErrorKind::PermissionDenied => PyPermissionError::new_err(line),
        io::ErrorKind::IsADirectory => PyIsADirectoryError::new_err(line),
        io::ErrorKind::NotADirectory => PyNotADirectoryError::new_err(line),
        io::ErrorKind::AlreadyExists => PyFileExistsError::new_err(line),
        io::ErrorKind::OutOfMemory => PyMemoryError::new_err(line),
        _ => PyOSError::new_err(line),
    }
}

/// The error and what caused it. An error that only wraps another is that one.
fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(inner(error)), |&error| error.source().map(inner))
}

/// The error inside one that passes it on: those do not stand in the chain of sources.
fn inner<'e>(mut error: &'e (dyn Error + 'static)) -> &'e (dyn Error + 'static) {
    loop {
        let next: Option<&(dyn Error + 'static)> = if let Some(error) = error.downcast_ref() {
            match error {
                offramp_pipeline::Error::Engine(error) => Some(error),
                offramp_pipeline::Error::Model(error) => Some(error),
                offramp_pipeline::Error::Text(error) => Some(error),
                _ => None,
            }
        } else if let Some(error) = error.downcast_ref() {
            match error {
                offramp_eval::Error::Engine(error) => Some(error),
                offramp_eval::Error::Model(error) => Some(error),
                offramp_eval::Error::Text(error) => Some(error),
                offramp_eval::Error::Pipeline(error) => Some(error),
                _ => None,
            }
        } else if let Some(offramp_engine::Error::Model(error)) = error.downcast_ref() {
            Some(error)
        } else if let Some(error) = error.downcast_ref() {
            match error {
                offramp_train::Error::Model(error) => Some(error),
                offramp_train::Error::Text(error) => Some(error),
                _ => None,
            }
        } else {
            None
        };
        match next {
            Some(next) => error = next,
            None => return error,
        }
    }
}

fn lacks_memory(error: &(dyn Error + 'static)) -> bool {
    use offramp_model::Error::{CacheMemory, NoMemory, WeightMemory};
    matches!(error.downcast_ref(), Some(CacheMemory { .. } | NoMemory { .. } | WeightMemory { .. }))
        || matches!(error.downcast_ref(), Some(offramp_train::Error::NoMemory { .. }))
}

fn misses_a_file(error: &(dyn Error + 'static)) -> bool {
    use offramp_train::Error::{NoCheckpoint, NoCorpus, NoRun};
    matches!(error.downcast_ref(), Some(offramp_model::Error::NoModel { .. }))
        || matches!(error.downcast_ref(), Some(offramp_text::Error::NoTokenizer { .. }))
        || matches!(error.downcast_ref(), Some(NoCheckpoint { .. } | NoCorpus { .. } | NoRun { .. }))
}

fn would_replace(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(offramp_model::Error::Exists { .. }))
        || matches!(error.downcast_ref(), Some(offramp_train::Error::RunExists { .. }))
}

/// Whether it is no mistake of the caller.
fn is_failure(error: &(dyn Error + 'static)) -> bool {
    use offramp_train::Error::{DiskFull, Diverged};
    matches!(
        error.downcast_ref(),
        Some(offramp_engine::Error::NotFinite { .. } | offramp_engine::Error::OthersFailed)
    ) || matches!(error.downcast_ref(), Some(Diverged { .. } | DiskFull { .. }))
}

/// The error and its causes. A cause that the line already contains is left out.
fn one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in std::iter::successors(Some(error), |&error| error.source()) {
        let message = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.contains(&message) {
            let colon = if line.is_empty() { "" } else { ": " };
            line += &format!("{colon}{message}");
        }
    }
    line
}
