//! A file in memory, and memory for what no file holds: the one place where this room lifts `unsafe_code`.
#![allow(unsafe_code, reason = "memory maps are unsafe by nature: another process may change the file")]

use memmap2::{Mmap, MmapMut};
use std::fs::File;
use std::io;

/// A whole file, mapped for reading.
#[derive(Debug)]
pub(crate) struct Map(Mmap);

impl Map {
    pub(super) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is read-only and private to `Map`, which hands out shared slices for no
        // longer than it lives. What the compiler cannot know is that nobody changes or truncates the
        // file meanwhile: offramp itself never does, every file it writes is a new one renamed over the
        // old, which stays whole for as long as it is mapped. Any bytes are valid `u8`, and what is read
        // from them is checked, so that a foreign writer can spoil values but not types.
        unsafe { Mmap::map(file) }.map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Zeroed memory of its own pages: aligned for everything, on huge pages where the system has them, and
/// given back whole when dropped.
#[derive(Debug)]
pub(crate) struct Pages(Option<MmapMut>); // none for no bytes at all, which cannot be mapped

impl Pages {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self(None));
        }
        let pages = MmapMut::map_anon(len)?;
        // Without them the weights are as right, and a little slower to walk through.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        Ok(Self(Some(pages)))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.as_deref_mut().unwrap_or_default()
    }
}
