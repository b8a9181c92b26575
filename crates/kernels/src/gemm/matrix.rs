//! Matrices over slices: the operands of a product, and its output.

use half::bf16;

/// The values of a matrix.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Rounded to `bf16`.
    Bf16(&'a [bf16]),
}

impl<'a> From<&'a [f32]> for Values<'a> {
    fn from(values: &'a [f32]) -> Self {
        Self::F32(values)
    }
}

impl<'a> From<&'a [bf16]> for Values<'a> {
    fn from(values: &'a [bf16]) -> Self {
        Self::Bf16(values)
    }
}

impl Values<'_> {
    fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
        }
    }

    /// From `first` on; nothing if that is beyond the end.
    fn from(self, first: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(values.get(first..).unwrap_or_default()),
            Self::Bf16(values) => Self::Bf16(values.get(first..).unwrap_or_default()),
        }
    }

    /// One value, widened.
    pub(crate) fn get(&self, index: usize) -> f32 {
        match self {
            Self::F32(values) => values[index],
            Self::Bf16(values) => values[index].to_f32(),
        }
    }
}

/// A read-only matrix over a slice; [`Matrix::t`] transposes without moving anything.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: Values<'a>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `values` as `[rows, cols]`, row after row.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn new(values: impl Into<Values<'a>>, rows: usize, cols: usize) -> Self {
        Self { values: values.into(), rows, cols, row_stride: cols, col_stride: 1 }.checked()
    }

    /// The same rows, `stride` values apart.
    ///
    /// # Panics
    /// If there are too few for that.
    pub fn with_row_stride(mut self, stride: usize) -> Self {
        self.row_stride = stride;
        self.checked()
    }

    /// The transpose, a view of the same values.
    pub fn t(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    fn checked(self) -> Self {
        let Self { rows, cols, row_stride, col_stride, values } = self;
        assert_fits([rows, cols], [row_stride, col_stride], values.len());
        self
    }

    /// `[rows, cols]` of it, from an element on.
    pub(super) fn part(&self, row: usize, col: usize, rows: usize, cols: usize) -> Self {
        let values = self.values.from(row * self.row_stride + col * self.col_stride);
        Self { values, rows, cols, ..*self }
    }

    /// As a left operand, whose columns are k.
    pub(super) fn rows(self) -> PackSource<'a> {
        let Self { values, rows, cols, row_stride, col_stride } = self;
        PackSource { values, count: rows, depth: cols, stride: row_stride, k_stride: col_stride }
    }

    /// As a right operand, whose rows are k.
    pub(super) fn columns(self) -> PackSource<'a> {
        self.t().rows()
    }
}

/// Rows of the left operand or columns of the right one, at a stretch of k.
#[derive(Clone, Copy)]
pub(crate) struct PackSource<'a> {
    /// From the first element on.
    pub(crate) values: Values<'a>,
    pub(crate) count: usize,
    pub(crate) depth: usize,
    /// From one row or column to the next.
    pub(crate) stride: usize,
    /// From one k to the next.
    pub(crate) k_stride: usize,
}

/// A matrix that is written, row-major.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// `data` as `[rows, cols]`, row after row.
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols }.with_row_stride(cols)
    }

    /// The same rows, `stride` floats apart.
    ///
    /// # Panics
    /// If the rows would overlap or the data is too short.
    pub fn with_row_stride(mut self, stride: usize) -> Self {
        assert!(stride >= self.cols, "rows of {} floats {stride} apart overlap", self.cols);
        assert_fits([self.rows, self.cols], [stride, 1], self.data.len());
        self.row_stride = stride;
        self
    }
}

/// Panics unless every element of a matrix lies within `len` values.
fn assert_fits([rows, cols]: [usize; 2], strides: [usize; 2], len: usize) {
    let fits = extent([rows, cols], strides).is_some_and(|needed| needed <= len);
    assert!(fits, "a matrix of [{rows}, {cols}], {strides:?} apart, over {len} floats");
}

/// Values from the first element to the last, both included; `None` beyond what can be counted.
fn extent([rows, cols]: [usize; 2], strides: [usize; 2]) -> Option<usize> {
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    let last = (rows - 1).checked_mul(strides[0])?.checked_add((cols - 1).checked_mul(strides[1])?)?;
    last.checked_add(1)
}
