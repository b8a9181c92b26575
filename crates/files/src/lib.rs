//! Files and folders that appear whole or not at all.
//!
//! Everything that this program keeps is written here: beside its target under a hidden name, handed to the disk, then
//! renamed onto the target, and the folder that holds the name is handed to the disk too. A process that is killed in
//! the middle leaves the old file and something hidden, which [`remove_leftovers`] takes away.
//!
//! Errors are the system's own. The callers name the file and say what to do; what they quote of a file they make
//! [`legible`].

mod disk;
mod file;
mod folder;
mod half_made;
mod legible;

pub use disk::free_space;
pub use file::{Finished, Unfinished, write_whole};
pub use folder::{remove_folder, remove_leftovers, replace_folder};
pub use half_made::abandon;
pub use legible::{legible, one_line};

use std::fs::File;
use std::path::Path;

/// What a file or folder is called before it is whole begins and ends with these.
const PREFIX: &str = ".offramp-";
const SUFFIX: &str = ".partial";
/// The end of what a replaced folder is called for the moment between two renames.
const REPLACED: &str = ".replaced";

/// Hands a folder's names to the disk, where the system can: without it a rename may come undone when the power
/// fails, but what it undoes to is whole.
fn sync_names(folder: &Path) {
    if let Ok(opened) = File::open(folder) {
        let _ = opened.sync_all();
    }
    #[cfg(test)]
    SYNCED.with_borrow_mut(|synced| synced.push(folder.to_owned()));
}

#[cfg(test)]
thread_local! {
    /// Folders whose names were handed to the disk.
    static SYNCED: std::cell::RefCell<Vec<std::path::PathBuf>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The folder in which `target` has its name.
fn parent(target: &Path) -> &Path {
    match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests;
