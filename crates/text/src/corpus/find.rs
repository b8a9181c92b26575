//! Turns what a user names (files, folders, patterns, standard input) into the files of a corpus.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::source::CorpusInput;
use super::{Corpus, CorpusFormat, CorpusOptions};
use crate::error::{Error, Result};
use crate::shard;

/// The name of standard input.
const STDIN: &str = "-";
/// Extensions of packed files that are not unpacked here.
const FOREIGN: [&str; 9] = ["xz", "bz2", "zip", "tar", "tgz", "7z", "rar", "lz4", "br"];

/// All files that `paths` name, in the order given.
pub(super) fn find(paths: &[PathBuf], options: &CorpusOptions) -> Result<Vec<Corpus>> {
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(of_folder(path, options)?);
        } else if let Some(files) = of_pattern(path)? {
            for file in files {
                found.push(open(&file, options)?);
            }
        } else {
            found.push(open(path, options)?);
        }
    }
    Ok(found)
}

/// Whether this is standard input or a pipe.
pub(crate) fn is_stream(path: &Path) -> bool {
    let is_pipe = |metadata: fs::Metadata| !metadata.is_file() && !metadata.is_dir();
    path.as_os_str() == STDIN || fs::metadata(path).is_ok_and(is_pipe)
}

/// One file, or standard input.
pub(super) fn open(path: &Path, options: &CorpusOptions) -> Result<Corpus> {
    let is_stdin = path.as_os_str() == STDIN;
    if !is_stdin && path.is_dir() {
        return Err(Error::read(path, ErrorKind::IsADirectory.into()));
    }
    let format = match (options.format, is_stdin) {
        (Some(format), _) => format,
        (None, true) => CorpusFormat::Txt,
        (None, false) => format_of(path)?,
    };
    let corpus = |place, bytes| Corpus {
        path: path.to_owned(),
        place,
        format,
        text_column: options.text_column.clone(),
        bytes,
    };
    if is_stdin {
        // If `-` were given twice, the second reader would find nothing.
        static NAMED: AtomicBool = AtomicBool::new(false);
        if NAMED.swap(true, Ordering::Relaxed) {
            return Err(Error::ComesOnce { path: path.to_owned() });
        }
        check_streamable(path, format)?;
        return Ok(corpus(CorpusInput::stream(std::io::stdin()), 0));
    }
    let metadata = fs::metadata(path).map_err(|e| Error::read(path, e))?;
    if !metadata.is_file() {
        // A pipe, which can be opened only once.
        check_streamable(path, format)?;
        return Ok(corpus(CorpusInput::stream(fs::File::open(path).map_err(|e| Error::read(path, e))?), 0));
    }
    Ok(corpus(CorpusInput::File, metadata.len()))
}

fn check_streamable(path: &Path, format: CorpusFormat) -> Result<()> {
    match format {
        CorpusFormat::Parquet => Err(Error::NeedsFile { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// The format that a file's name means, with or without a packing extension.
pub(super) fn format_of(path: &Path) -> Result<CorpusFormat> {
    let unknown = || Error::UnknownCorpus { path: path.to_owned() };
    let name = path.file_name().ok_or_else(unknown)?.to_string_lossy().to_ascii_lowercase();
    let (bare, packed) = match name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")) {
        Some(bare) => (bare, true),
        None => (&*name, false),
    };
    let (_, extension) = bare.rsplit_once('.').ok_or_else(unknown)?;
    match extension.parse() {
        Ok(CorpusFormat::Parquet) if packed => {
            Err(Error::Foreign { path: path.to_owned(), name: "parquet within another file".to_owned() })
        }
        Ok(format) => Ok(format),
        Err(_) if FOREIGN.contains(&extension) => {
            Err(Error::Foreign { path: path.to_owned(), name: extension.to_owned() })
        }
        Err(_) => Err(unknown()),
    }
}

/// The corpus files directly in a folder, sorted by name. They must have one format: with several, some of
/// the files are probably not part of the corpus.
fn of_folder(folder: &Path, options: &CorpusOptions) -> Result<Vec<Corpus>> {
    if shard::are_in(folder) {
        return Err(Error::PreparedFolder { path: folder.to_owned() });
    }
    let failed = |e| Error::read(folder, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if let (Ok(format), true, false) = (format_of(&path), path.is_file(), hidden) {
            files.push((path, format));
        }
    }
    files.sort();
    let Some((_, first)) = files.first() else {
        return Err(Error::EmptyFolder { path: folder.to_owned() });
    };
    if let Some((_, other)) = files.iter().find(|(_, format)| format != first) {
        let kinds = [first.name(), other.name()];
        return Err(Error::MixedFolder { path: folder.to_owned(), kinds });
    }
    files.iter().map(|(path, _)| open(path, options)).collect()
}

/// The files that match a pattern, sorted by name. `None` if `path` is no pattern, or if a file has exactly
/// that name.
fn of_pattern(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    let pattern = path.to_str().filter(|text| text.contains(['*', '?', '[']) && !path.exists());
    let Some(pattern) = pattern else { return Ok(None) };
    let nothing = |reason: &str| Error::NoMatch { path: path.to_owned(), reason: reason.to_owned() };
    let matches = glob::glob(pattern).map_err(|e| nothing(e.msg))?;
    let mut files = Vec::new();
    for found in matches {
        let file = found.map_err(|e| {
            let folder = e.path().to_owned();
            Error::read(&folder, e.into())
        })?;
        if file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(nothing("no file is named so"));
    }
    files.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    Ok(Some(files))
}
