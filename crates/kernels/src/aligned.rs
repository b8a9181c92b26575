//! A buffer that begins at a cache line. A vector or a tile row that crosses two lines costs two reads.

/// A buffer that is kept from call to call. Its first value lies at a multiple of 64 bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aligned<V> {
    room: Vec<V>,
    start: usize, // stored, because a clone's buffer lies at another address
    len: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl<V: Copy + Default> Aligned<V> {
    /// Makes room for `len` values. They hold anything.
    pub(crate) fn resize(&mut self, len: usize) -> &mut [V] {
        let spare = LINE / size_of::<V>().min(LINE);
        if self.room.len() < len + spare {
            self.room.resize(len + spare, V::default());
        }
        // `align_offset` may give up; the values are then correct, only slower to read.
        let line = self.room.as_ptr().align_offset(LINE);
        self.start = if line <= self.room.len() - len { line } else { 0 };
        self.len = len;
        &mut self.room[self.start..][..len]
    }

    /// The values that there is room for.
    pub(crate) fn values(&self) -> &[V] {
        &self.room[self.start..][..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_at_a_line_and_stay() {
        let mut buffer = Aligned::<u16>::default();
        assert!(buffer.values().is_empty());
        for len in [1, 70, 5] {
            buffer.resize(len).fill(len as u16);
            assert_eq!(buffer.values(), vec![len as u16; len]);
            assert_eq!(buffer.values().as_ptr() as usize % 64, 0);
        }
    }

    #[test]
    fn a_clone_has_the_same_values() {
        let mut buffers = vec![Aligned::<i8>::default()];
        buffers[0].resize(9).copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        for _ in 0..20 {
            buffers.push(buffers[0].clone()); // somewhere else each
            assert_eq!(buffers[buffers.len() - 1].values(), buffers[0].values());
        }
    }
}
