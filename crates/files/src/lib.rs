//! Files and folders that appear whole or not at all.
//!
//! Every file that this program keeps is written here, in four steps: it is written beside its target under a
//! hidden name, flushed to the disk, renamed onto the target, and the folder's list of names is flushed too.
//! A process that is killed midway leaves the old file and a hidden one, which [`remove_leftovers`] removes.
//!
//! Errors are the system's own. The callers name the file and say what to do. What they quote from a file
//! they pass through [`legible`].

mod disk;
mod file;
mod folder;
mod half_made;
mod legible;
mod open_files;
mod shared;

pub use disk::free_space;
pub use file::{Finished, Unfinished, write_whole};
pub use folder::{remove_folder, remove_leftovers, replace_folder};
pub use half_made::abandon;
pub use legible::{legible, one_line};
pub use open_files::allow_many_open_files;
pub use shared::SharedFolder;

use std::fs::File;
use std::path::Path;

/// The hidden name of an unfinished file or folder begins and ends with these.
const PREFIX: &str = ".offramp-";
const SUFFIX: &str = ".partial";
/// The ending of a replaced folder's name, between the two renames.
const REPLACED: &str = ".replaced";

/// Flushes a folder's list of names to the disk, where the system can. Without this a power failure may undo
/// a rename. The old file would then be back, and whole.
fn sync_names(folder: &Path) {
    if let Ok(opened) = File::open(folder) {
        let _ = opened.sync_all();
    }
    #[cfg(test)]
    SYNCED.with_borrow_mut(|synced| synced.push(folder.to_owned()));
}

#[cfg(test)]
thread_local! {
    /// Folders whose list of names was flushed.
    static SYNCED: std::cell::RefCell<Vec<std::path::PathBuf>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The folder that holds the name of `target`.
fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
