//! Ranges as MPI takes them: counts and places that are `int`s.

use std::ffi::c_int;
use std::ops::Range;

/// A count and a place for each rank. Places are counted from `base`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) base: usize,
    /// Values from `base` to the end of the last range.
    pub(crate) len: usize,
    pub(crate) counts: Vec<c_int>,
    pub(crate) at: Vec<c_int>,
}

impl Places {
    /// The places of ranges in a buffer; none if they are too far apart for an `int`.
    ///
    /// # Panics
    /// If there is no range for each of `size` ranks, or one reaches beyond the `len` values of the buffer.
    pub(crate) fn of(ranges: &[Range<usize>], size: usize, len: usize) -> Option<Self> {
        assert_eq!(ranges.len(), size, "a range for each rank");
        assert!(ranges.iter().all(|range| range.start <= range.end && range.end <= len), "ranges inside");
        let base = ranges.iter().map(|range| range.start).min().unwrap_or(0);
        let place = |range: &Range<usize>| {
            c_int::try_from(range.end - base).ok()?; // no place is beyond it
            Some((int(range.len()), int(range.start - base)))
        };
        let (counts, at) = ranges.iter().map(place).collect::<Option<Vec<_>>>()?.into_iter().unzip();
        let end = ranges.iter().map(|range| range.end).max().unwrap_or(base);
        Some(Self { base, len: end - base, counts, at })
    }

    /// What is in them.
    pub(crate) fn slice<'a>(&self, values: &'a [f32]) -> &'a [f32] {
        &values[self.base..self.base + self.len]
    }

    /// What is in them, to be changed.
    pub(crate) fn slice_mut<'a>(&self, values: &'a mut [f32]) -> &'a mut [f32] {
        &mut values[self.base..self.base + self.len]
    }

    /// The places of the same ranges in a buffer that holds nothing else, one after another.
    pub(crate) fn one_after_another(ranges: &[Range<usize>]) -> Self {
        let mut end = 0;
        let place = |range: &Range<usize>| {
            let start = end;
            end += range.len();
            (int(range.len()), int(start))
        };
        let (counts, at) = ranges.iter().map(place).unzip();
        Self { base: 0, len: end, counts, at }
    }
}

/// A number that MPI takes as an `int`.
///
/// # Panics
/// If it is none; callers send pieces.
pub(crate) fn int(number: usize) -> c_int {
    c_int::try_from(number).expect("a piece is short")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_from_the_first_range_unless_they_are_too_far_apart() {
        let near = Places::of(&[10..14, 7..9, 20..20], 3, 20).unwrap();
        assert_eq!((near.base, near.len), (7, 13));
        assert_eq!((near.counts, near.at), (vec![4, 2, 0], vec![3, 0, 13]));
        let far = [0..4, 1 << 40..(1 << 40) + 2];
        assert_eq!(Places::of(&far, 2, 1 << 41), None);
        let packed = Places::one_after_another(&far);
        assert_eq!((packed.len, packed.counts, packed.at), (6, vec![4, 2], vec![0, 4]));
    }
}
