//! Files and folders that appear whole or not at all: made beside their target, then renamed onto it.

use super::checksum::{Checksum, Summed};
use crate::error::{Error, Result};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::{Builder, TempPath};

const PREFIX: &str = ".offramp-";
const SUFFIX: &str = ".partial";
/// What a replaced folder is called for the moment between two renames.
const REPLACED: &str = ".replaced";
const BUFFER: usize = 1 << 20;

/// What this process has half made. Whatever begins or ends such a path holds the lock meanwhile.
static HALF_MADE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn half_made() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    HALF_MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what this process has half made, in its last moment: a thread that begins or publishes a file or a
/// folder after that waits for ever.
pub fn abandon() {
    let paths = half_made();
    for path in paths.iter() {
        let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    }
    std::mem::forget(paths);
}

/// A path of [`HALF_MADE`]; dropped, it is none any more.
struct Listed(PathBuf);

impl Drop for Listed {
    fn drop(&mut self) {
        half_made().remove(&self.0);
    }
}

/// A file in the making; dropped unpublished, it is removed.
pub(super) struct Unfinished {
    file: BufWriter<Summed>,
    name: TempPath, // removes the file when dropped
    listed: Listed,
    target: PathBuf,
}

impl Unfinished {
    pub(super) fn create(target: &Path) -> Result<Self> {
        // `create_new` and not tempfile's own opening: the result is for others to read, so it gets the
        // permissions of any new file (0666 less the umask), not those of a secret.
        let open = |path: &Path| File::options().write(true).create_new(true).open(path);
        let mut paths = half_made();
        let file = Builder::new().prefix(PREFIX).suffix(SUFFIX).make_in(parent(target), open);
        let file = file.map_err(|error| Error::write(target, error))?;
        // Apart, for tempfile's own writer adds the hidden name to every error.
        let (file, name) = file.into_parts();
        paths.insert(name.to_owned());
        let (file, listed) = (BufWriter::with_capacity(BUFFER, Summed::new(file)), Listed(name.to_owned()));
        Ok(Self { file, name, listed, target: target.to_owned() })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| Error::write(&self.target, error))
    }

    /// Hands the bytes to the disk, then gives the file its name in place of whatever had it.
    pub(super) fn publish(self) -> Result<Checksum> {
        let Self { file, name, listed, target } = self;
        let failed = |error: io::Error| Error::write(&target, error);
        let (file, checksum) = file.into_inner().map_err(|error| failed(error.into_error()))?.finish();
        file.sync_all().map_err(failed)?;
        let paths = half_made();
        name.persist(&target).map_err(|error| failed(error.error))?;
        drop(paths);
        drop(listed);
        sync_names(parent(&target));
        Ok(checksum)
    }
}

/// Replaces the file at `path` by what `fill` writes, whole or not at all, and returns what it now is.
///
/// # Errors
/// If `fill` fails or the file cannot be written; then what was there before is still there.
pub fn write_atomically(
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Checksum> {
    let mut unfinished = Unfinished::create(path)?;
    fill(&mut unfinished.file).map_err(|error| Error::write(path, error))?;
    unfinished.publish()
}

/// Replaces the folder at `target` by one that `fill` puts its files in, whole or not at all.
///
/// A folder that was there before is set aside under a hidden name, and removed once the new one has
/// its place.
///
/// # Errors
/// What `fill` returns, or if a folder cannot be made or renamed; then what was there before is still
/// there.
pub fn replace_folder<E: From<Error>>(
    target: &Path,
    fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let unfinished = Folder::create(target)?;
    fill(&unfinished.path)?;
    sync_names(&unfinished.path);
    unfinished.publish(target)?;
    Ok(())
}

/// A folder in the making; dropped unpublished, it is removed.
struct Folder {
    path: PathBuf,
    _listed: Listed,
}

impl Folder {
    fn create(target: &Path) -> Result<Self> {
        let path = hidden(target);
        let mut paths = half_made();
        let cleared = match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir(&path),
        };
        cleared.map_err(|error| Error::write(target, error))?;
        paths.insert(path.clone());
        Ok(Self { _listed: Listed(path.clone()), path })
    }

    fn publish(self, target: &Path) -> Result<()> {
        let failed = |error| Error::write(target, error);
        let aside = self.path.with_extension(&REPLACED[1..]);
        let replaces = target.exists();
        let mut paths = half_made();
        if replaces {
            let _ = fs::remove_dir_all(&aside); // left by a process of the same number that was killed
            fs::rename(target, &aside).map_err(failed)?;
        }
        if let Err(error) = fs::rename(&self.path, target) {
            if replaces {
                fs::rename(&aside, target).map_err(failed)?;
            }
            return Err(failed(error));
        }
        let set_aside = replaces.then(|| {
            paths.insert(aside.clone());
            Listed(aside.clone())
        });
        drop(paths);
        sync_names(parent(target));
        if set_aside.is_some() {
            let _ = fs::remove_dir_all(&aside); // the new folder stands: nothing is lost if this fails
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes a folder: under a hidden name first, so that a process killed in the middle leaves no half of it.
///
/// # Errors
/// If it cannot be renamed or removed.
pub fn remove_folder(folder: &Path) -> Result<()> {
    let failed = |error| Error::write(folder, error);
    let aside = hidden(folder);
    half_made().insert(aside.clone());
    let _listed = Listed(aside.clone());
    fs::rename(folder, &aside).map_err(failed)?;
    fs::remove_dir_all(&aside).map_err(failed)
}

/// What a folder is called before it is whole, and while it is removed.
fn hidden(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    parent(folder).join(format!("{PREFIX}{name}-{}{SUFFIX}", std::process::id()))
}

/// Removes what killed runs left half-made in `folder`, and gives a folder that was set aside its name
/// back if the new one never got it. Nothing else may be writing there.
pub fn remove_leftovers(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(target) = set_aside(&name).map(|name| folder.join(name)).filter(|path| !path.exists()) {
            let _ = fs::rename(&path, target);
        } else if name.starts_with(PREFIX) && (name.ends_with(SUFFIX) || name.ends_with(REPLACED)) {
            let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
    }
}

/// The name that a folder had before it was set aside: `model` of `.offramp-model-77.replaced`.
fn set_aside(name: &str) -> Option<&str> {
    let (name, process) = name.strip_prefix(PREFIX)?.strip_suffix(REPLACED)?.rsplit_once('-')?;
    (!name.is_empty() && process.parse::<u32>().is_ok()).then_some(name)
}

/// Hands a folder's names to the disk, where the system can: without it a rename may come undone when
/// the power fails, but what it undoes to is whole.
fn sync_names(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}

fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
