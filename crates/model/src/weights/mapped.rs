//! A file mapped into memory.
#![allow(unsafe_code, reason = "a memory map is sound only while nobody shortens the file")]

use crate::error::{Error, Result};
use memmap2::Mmap;
use std::fs::File;
use std::path::Path;

/// A read-only map of a whole file.
#[derive(Debug)]
pub(crate) struct Mapped {
    map: Mmap,
}

impl Mapped {
    /// # Errors
    /// If the file cannot be opened or mapped.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|source| Error::io("open", path, source))?;
        // SAFETY: the map is read-only and private. Files of ours are replaced by renaming, never
        // shortened in place, so a map keeps its content; other programs must not truncate a
        // checkpoint while it is loaded, as with every engine that maps its weights.
        let map = unsafe { Mmap::map(&file) };
        Ok(Self { map: map.map_err(|source| Error::io("map", path, source))? })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }
}
