//! Training's large products, on the `gemm` crate. The order of summation is the crate's.

/// A read-only matrix over a slice; [`Matrix::t`] transposes without moving anything.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// `data` as `[rows, cols]`, row after row.
    ///
    /// # Panics
    /// If `data` is shorter.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }.checked()
    }

    /// The same rows, `stride` floats apart.
    ///
    /// # Panics
    /// If the data is too short for that.
    pub fn with_row_stride(mut self, stride: usize) -> Self {
        self.row_stride = stride;
        self.checked()
    }

    /// The transpose, a view of the same floats.
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
        let Self { rows, cols, row_stride, col_stride, data } = self;
        assert_fits([rows, cols], [row_stride, col_stride], data.len());
        self
    }
}

/// A matrix that is written, row-major.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
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

/// Panics unless every element of a matrix lies within `len` floats and its strides fit an `isize`.
fn assert_fits([rows, cols]: [usize; 2], strides: [usize; 2], len: usize) {
    let fits = extent([rows, cols], strides).is_some_and(|needed| needed <= len);
    assert!(fits, "a matrix of [{rows}, {cols}], {strides:?} apart, over {len} floats");
}

/// Floats from the first element to the last, both included; `None` beyond what can be addressed. The
/// gemm call rests on it, so that it must not wrap.
fn extent([rows, cols]: [usize; 2], strides: [usize; 2]) -> Option<usize> {
    if strides.iter().any(|stride| isize::try_from(*stride).is_err()) {
        return None;
    }
    if rows == 0 || cols == 0 {
        return Some(0);
    }
    let last = (rows - 1).checked_mul(strides[0])?.checked_add((cols - 1).checked_mul(strides[1])?)?;
    last.checked_add(1)
}

/// What happens to what stood in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is overwritten.
    Replace,
    /// The product is added to it.
    Add,
}

/// Who computes a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// The calling thread: inside loops that are parallel already.
    One,
    /// The whole pool.
    All,
}

/// `out = alpha · a · b`, or `out += alpha · a · b`.
///
/// # Shapes
/// `out`: `[m, n]`, `a`: `[m, k]`, `b`: `[k, n]`
///
/// # Panics
/// If the shapes do not fit.
#[allow(unsafe_code, reason = "the gemm crate's entry takes raw pointers")]
pub fn gemm(out: MatrixMut<'_>, write: Write, alpha: f32, a: Matrix<'_>, b: Matrix<'_>, threads: Threads) {
    assert!(
        out.rows == a.rows && a.cols == b.rows && b.cols == out.cols,
        "[{}, {}] = [{}, {}] · [{}, {}]",
        out.rows,
        out.cols,
        a.rows,
        a.cols,
        b.rows,
        b.cols
    );
    let keep = if write == Write::Add { 1.0 } else { 0.0 };
    let parallelism = match threads {
        Threads::One => gemm::Parallelism::None,
        Threads::All => gemm::Parallelism::Rayon(0),
    };
    // SAFETY: each view was checked to lie within its slice, the strides are non-negative, and `out`
    // is borrowed mutably, so it overlaps neither `a` nor `b`.
    unsafe {
        gemm::gemm(
            out.rows,
            out.cols,
            a.cols,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            write == Write::Add,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            keep,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect()
    }

    #[test]
    fn strides_transposes_and_accumulation_follow_the_definition() {
        let (m, n, k) = (7, 5, 9);
        let (a, bt) = (numbers(m * k), numbers(n * (k + 2)));
        for threads in [Threads::One, Threads::All] {
            for write in [Write::Replace, Write::Add] {
                let mut out = vec![3.0; m * (n + 1)];
                let b = Matrix::new(&bt, n, k).with_row_stride(k + 2).t();
                let target = MatrixMut::new(&mut out, m, n).with_row_stride(n + 1);
                gemm(target, write, 0.5, Matrix::new(&a, m, k), b, threads);
                for i in 0..m {
                    for j in 0..n {
                        let sum: f32 = (0..k).map(|l| a[i * k + l] * bt[j * (k + 2) + l]).sum();
                        let before = if write == Write::Add { 3.0 } else { 0.0 };
                        assert!((out[i * (n + 1) + j] - before - 0.5 * sum).abs() < 1e-4);
                    }
                }
                assert!((0..m - 1).all(|i| out[i * (n + 1) + n] == 3.0), "the gap between rows is not ours");
            }
        }
    }

    #[test]
    #[should_panic(expected = "[2, 2] = [2, 3] · [2, 2]")]
    fn shapes_that_do_not_fit_are_refused() {
        let (mut out, a, b) = ([0.0; 4], [0.0; 6], [0.0; 4]);
        let target = MatrixMut::new(&mut out, 2, 2);
        gemm(target, Write::Replace, 1.0, Matrix::new(&a, 2, 3), Matrix::new(&b, 2, 2), Threads::One);
    }

    #[test]
    #[should_panic(expected = "a matrix of [4294967296, 4294967296]")]
    fn sizes_that_would_wrap_to_nothing_are_refused() {
        let _ = Matrix::new(&[], 1 << 32, 1 << 32);
    }

    #[test]
    #[should_panic(expected = "a matrix of [1, 1]")]
    fn strides_beyond_the_address_space_are_refused() {
        let _ = MatrixMut::new(&mut [0.0], 1, 1).with_row_stride(usize::MAX);
    }

    #[test]
    fn a_product_over_nothing_is_zero_and_one_of_nothing_writes_nothing() {
        let mut out = [f32::NAN; 4];
        let (a, b) = (Matrix::new(&[], 2, 0), Matrix::new(&[], 0, 2));
        gemm(MatrixMut::new(&mut out, 2, 2), Write::Replace, 1.0, a, b, Threads::All);
        assert_eq!(out, [0.0; 4]);
        let (a, b) = (Matrix::new(&[], 0, 2), Matrix::new(&[1.0; 4], 2, 2));
        gemm(MatrixMut::new(&mut out, 0, 2), Write::Replace, 1.0, a, b, Threads::All);
        assert_eq!(out, [0.0; 4]);
    }
}
