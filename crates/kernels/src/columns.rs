//! Columns of an output that several threads write at once: each gets its own, and no other.
#![allow(
    unsafe_code,
    reason = "columns of a row-major matrix interleave in memory: slices cannot divide them"
)]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Some columns of a row-major matrix `[rows, stride]`, for writing.
#[derive(Debug)]
pub struct ColumnsMut<'a> {
    start: *mut f32,
    rows: usize,
    columns: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is an exclusive borrow of its columns, as `&mut [f32]` is of its elements.
unsafe impl Send for ColumnsMut<'_> {}

impl<'a> ColumnsMut<'a> {
    /// All columns of `matrix` `[rows, columns]`.
    ///
    /// # Panics
    /// If it is not a whole number of rows.
    pub fn new(matrix: &'a mut [f32], columns: usize) -> Self {
        let rows = matrix.len().checked_div(columns).unwrap_or(0);
        assert_eq!(matrix.len(), rows * columns, "a matrix of [rows, {columns}]");
        Self { start: matrix.as_mut_ptr(), rows, columns, stride: columns, matrix: PhantomData }
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns of this part.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Floats from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The first row's first column; each row has `columns` floats, `stride` apart.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.start
    }

    /// This part of one row.
    ///
    /// # Panics
    /// If there are not so many rows.
    pub fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: the row's columns lie within the matrix and are borrowed by this part alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.stride), self.columns) }
    }

    /// The columns before `column`, and those from it on.
    ///
    /// # Panics
    /// If there are fewer columns.
    pub fn split_at(self, column: usize) -> (Self, Self) {
        assert!(column <= self.columns, "column {column} of {}", self.columns);
        let rest = Self { start: self.start.wrapping_add(column), columns: self.columns - column, ..self };
        (Self { columns: column, ..self }, rest)
    }
}

/// Threads that have columns of their own to begin with; others help those.
const SEGMENTS: usize = 16;

/// An output whose columns are claimed, some at a time, by whoever has time.
///
/// Each thread begins with a segment of its own, so that the same thread reads the same weights token
/// after token; who is done early helps the others.
#[derive(Debug)]
pub struct Claims<'a> {
    whole: ColumnsMut<'a>,
    unit: usize,
    chunk: usize, // units
    segments: usize,
    taken: [AtomicUsize; SEGMENTS], // units of each segment
}

// SAFETY: the matrix is reached through `claim` alone, which hands out every column once.
unsafe impl Sync for Claims<'_> {}

impl<'a> Claims<'a> {
    /// Shares out the columns of `whole` among `threads`, `chunk` at a time (rounded up to whole `unit`s).
    pub fn new(whole: ColumnsMut<'a>, unit: usize, chunk: usize, threads: usize) -> Self {
        let (unit, segments) = (unit.max(1), threads.clamp(1, SEGMENTS));
        let taken = [const { AtomicUsize::new(0) }; SEGMENTS];
        // No more than there are, so that no sum of them overflows.
        let chunk = chunk.div_ceil(unit).clamp(1, whole.columns.div_ceil(unit).max(1));
        Self { whole, unit, chunk, segments, taken }
    }

    /// Columns that nobody has had: where they begin, and they themselves.
    pub fn claim(&self, thread: usize) -> Option<(usize, ColumnsMut<'_>)> {
        let range =
            (0..self.segments).find_map(|i| self.claim_of((thread % self.segments + i) % self.segments))?;
        let ColumnsMut { start, rows, stride, .. } = self.whole;
        let start = start.wrapping_add(range.start);
        Some((range.start, ColumnsMut { start, rows, columns: range.len(), stride, matrix: PhantomData }))
    }

    fn claim_of(&self, segment: usize) -> Option<Range<usize>> {
        let units = self.whole.columns.div_ceil(self.unit);
        let [first, end] = [segment, segment + 1].map(|s| units * s / self.segments);
        // A counter that stops at its end can never come round to columns that somebody has.
        let more = |taken: usize| (taken < end - first).then(|| (taken + self.chunk).min(end - first));
        let taken = self.taken[segment].fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let [from, to] =
            [taken, (taken + self.chunk).min(end - first)].map(|units| (first + units) * self.unit);
        Some(from..to.min(self.whole.columns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_is_claimed_once_whoever_asks() {
        for (columns, unit, chunk, threads) in
            [(1, 1, 1, 1), (7, 4, 1, 2), (64, 32, 32, 3), (100, 32, 64, 2), (5, 1, 2, 40), (33, 16, 7, 16)]
        {
            let mut matrix = vec![0.0; 3 * columns];
            let claims = Claims::new(ColumnsMut::new(&mut matrix, columns), unit, chunk, threads);
            let work = |thread: usize| {
                while let Some((first, mut part)) = claims.claim(thread) {
                    assert!(first % unit == 0 && part.rows() == 3);
                    for row in 0..3 {
                        part.row(row).iter_mut().enumerate().for_each(|(i, x)| *x += (first + i + 1) as f32);
                    }
                }
            };
            std::thread::scope(|scope| (0..threads.min(4)).for_each(|t| drop(scope.spawn(move || work(t)))));
            let row: Vec<f32> = (1..=columns).map(|i| i as f32).collect();
            assert_eq!(
                matrix,
                row.repeat(3),
                "{columns} columns by {unit}, {chunk} at a time, {threads} threads"
            );
        }
    }

    /// A counter that ran on would come round, and hand out the first columns once more.
    #[test]
    fn who_asks_too_often_or_for_too_much_gets_nothing() {
        let mut matrix = vec![0.0; 10];
        for (unit, chunk) in
            [(1, 1 << (usize::BITS - 1)), (1, usize::MAX), (usize::MAX, 1), (4, usize::MAX - 2)]
        {
            let claims = Claims::new(ColumnsMut::new(&mut matrix, 5), unit, chunk, 1);
            let claimed =
                [usize::MAX, 0, 1, 2, 3, 4].map(|thread| claims.claim(thread).map(|(_, p)| p.columns()));
            assert_eq!(claimed, [Some(5), None, None, None, None, None], "{unit} {chunk}");
        }
    }

    #[test]
    fn a_split_divides_every_row() {
        let mut matrix: Vec<f32> = (0..6).map(|x| x as f32).collect();
        let (mut low, mut high) = ColumnsMut::new(&mut matrix, 3).split_at(1);
        assert_eq!((low.row(1), high.row(0)), (&mut [3.0][..], &mut [1.0, 2.0][..]));
    }
}
