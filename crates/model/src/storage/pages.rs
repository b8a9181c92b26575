//! Memory for values that are not mapped.
#![allow(unsafe_code, reason = "memory straight from the system comes as a raw pointer")]

use memmap2::{MmapMut, MmapRaw};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Zeroed memory, aligned for every type, on large pages if the system has them.
///
/// A large page has 2 MiB, more than many a matrix. Smaller pieces share a chunk, which is freed with the
/// last of them.
#[derive(Debug)]
pub(crate) struct Pages {
    map: Option<Arc<MmapRaw>>, // none for no bytes at all, which cannot be mapped
    bytes: Range<usize>,
}

const LARGE_PAGE: usize = 2 << 20;
const CHUNK: usize = 64 << 20;
const LINE: usize = 64;

/// The chunk with free space, and where that begins.
static CURRENT: Mutex<(Weak<MmapRaw>, usize)> = Mutex::new((Weak::new(), 0));

impl Pages {
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self { map: None, bytes: 0..0 });
        }
        if len >= CHUNK {
            let (map, start) = large_pages(len)?;
            return Ok(Self { map: Some(map), bytes: start..start + len });
        }
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let (map, start) = match current.0.upgrade() {
            Some(map) if map.len() >= current.1 + len => (map, current.1),
            _ => large_pages(CHUNK)?,
        };
        *current = (Arc::downgrade(&map), (start + len).next_multiple_of(LINE));
        Ok(Self { map: Some(map), bytes: start..start + len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let Some(map) = &self.map else { return &[] };
        // SAFETY: the range lies within the map, which lives as long as `self`, and no other `Pages` has any
        // of it: free space in a chunk is handed out once. The system zeroed it, and any bytes are valid
        // `u8`.
        unsafe { std::slice::from_raw_parts(map.as_ptr().add(self.bytes.start), self.bytes.len()) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let Some(map) = &self.map else { return &mut [] };
        // SAFETY: as above; and this is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr().add(self.bytes.start), self.bytes.len()) }
    }
}

/// Maps memory for `len` bytes; also returns the offset of the large page at which they begin.
fn large_pages(len: usize) -> io::Result<(Arc<MmapRaw>, usize)> {
    let map = MmapMut::map_anon(len.checked_add(LARGE_PAGE).ok_or(io::ErrorKind::OutOfMemory)?)?;
    // Without large pages reading the weights takes a third longer.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    let start = map.as_ptr().align_offset(LARGE_PAGE).min(LARGE_PAGE);
    Ok((Arc::new(MmapRaw::from(map)), start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_zeroed_lines_of_its_own() {
        let sizes = [1, 64, 100, CHUNK - 200, 300, CHUNK + 5, 0, 7];
        let mut all: Vec<Pages> = sizes.iter().map(|&len| Pages::new(len).expect("room")).collect();
        for (index, (pages, len)) in all.iter_mut().zip(sizes).enumerate() {
            let bytes = pages.bytes_mut();
            assert!(bytes.len() == len && bytes.iter().take(1000).all(|&byte| byte == 0));
            assert!(len == 0 || (bytes.as_ptr() as usize).is_multiple_of(LINE));
            let ends = len.min(1000);
            bytes[..ends].fill(index as u8);
            bytes[len - ends..].fill(index as u8);
        }
        for (index, (pages, len)) in all.iter().zip(sizes).enumerate() {
            let ends = [&pages.bytes()[..len.min(1000)], &pages.bytes()[len - len.min(1000)..]];
            assert!(ends.into_iter().flatten().all(|&byte| byte == index as u8));
        }
    }
}
