//! A folder of files that belong together: written beside its target, then renamed onto it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::half_made::{Listed, half_made};
use crate::{PREFIX, REPLACED, SUFFIX, parent, sync_names};

/// Replaces the folder at `target` by a new one, into which `fill` writes its files. Either the whole new
/// folder appears or nothing changes.
///
/// An old folder is first renamed to a hidden name, and removed once the new one has its name. `failed` turns
/// the system's error into the caller's.
///
/// # Errors
/// What `fill` returns, or if a folder cannot be made or renamed. The old folder then stays.
pub fn replace_folder<E>(
    target: &Path,
    failed: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let unfinished = Folder::create(target).map_err(&failed)?;
    fill(&unfinished.path)?;
    sync_names(&unfinished.path);
    unfinished.publish(target).map_err(failed)
}

/// A folder that is being filled. Dropping it before `publish` removes it.
struct Folder {
    path: PathBuf,
    _listed: Listed,
}

impl Folder {
    fn create(target: &Path) -> io::Result<Self> {
        let path = hidden(target);
        let mut paths = half_made();
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::create_dir(&path)?,
        }
        Ok(Self { _listed: Listed::new(&mut paths, &path), path })
    }

    fn publish(self, target: &Path) -> io::Result<()> {
        let aside = self.path.with_extension(&REPLACED[1..]);
        let replaces = target.exists();
        let mut paths = half_made();
        if replaces {
            let _ = fs::remove_dir_all(&aside); // a killed process with the same id left it
            fs::rename(target, &aside)?;
        }
        if let Err(error) = fs::rename(&self.path, target) {
            if replaces {
                fs::rename(&aside, target)?;
            }
            return Err(error);
        }
        let set_aside = replaces.then(|| Listed::new(&mut paths, &aside));
        drop(paths);
        sync_names(parent(target));
        if set_aside.is_some() {
            let _ = fs::remove_dir_all(&aside); // the new folder is in place, so a failure loses nothing
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Removes a folder. It is renamed to a hidden name first, so that a process killed midway leaves no partial
/// folder under the old name.
///
/// # Errors
/// If it cannot be renamed or removed.
pub fn remove_folder(folder: &Path) -> io::Result<()> {
    let aside = hidden(folder);
    let _listed = Listed::new(&mut half_made(), &aside);
    fs::rename(folder, &aside)?;
    sync_names(parent(folder));
    fs::remove_dir_all(&aside)
}

/// The hidden name of a folder while it is filled or removed.
fn hidden(folder: &Path) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    parent(folder).join(format!("{PREFIX}{name}-{}{SUFFIX}", std::process::id()))
}

/// Removes the partial files that killed runs left in `folder`. If an old folder was set aside and its
/// replacement never came, it gets its name back. Nothing else may write to `folder` meanwhile. Failures are
/// ignored: nothing depends on this.
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

/// The name of a folder before it was set aside: `model` for `.offramp-model-77.replaced`.
fn set_aside(name: &str) -> Option<&str> {
    let (name, process) = name.strip_prefix(PREFIX)?.strip_suffix(REPLACED)?.rsplit_once('-')?;
    (!name.is_empty() && process.parse::<u32>().is_ok()).then_some(name)
}
