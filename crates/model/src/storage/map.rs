//! A mapped file.
#![allow(unsafe_code, reason = "memory maps are unsafe by nature: another process may change the file")]

use memmap2::Mmap;
use std::fs::File;
use std::io;

/// A whole file: mapped for reading, or compiled into the program.
#[derive(Debug)]
pub(crate) enum Map {
    File(Mmap),
    Given(&'static [u8]),
}

impl Map {
    pub(crate) fn new(file: &File) -> io::Result<Self> {
        // SAFETY: the mapping is read-only and private to `Map`, which hands out shared slices for no
        // longer than it lives. What the compiler cannot know is that nobody changes or truncates the
        // file meanwhile: offramp itself never does, every file it writes is a new one renamed over the
        // old, which stays whole for as long as it is mapped. Any bytes are valid `u8`, and what is read
        // from them is checked, so that a foreign writer can spoil values but not types.
        unsafe { Mmap::map(file) }.map(Self::File)
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::File(map) => map,
            Self::Given(bytes) => bytes,
        }
    }
}
