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
        let needed = extent(self.rows, self.cols, self.row_stride, self.col_stride);
        assert!(self.data.len() >= needed, "a matrix of {needed} floats over {}", self.data.len());
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
        let needed = extent(self.rows, self.cols, stride, 1);
        assert!(self.data.len() >= needed, "a matrix of {needed} floats over {}", self.data.len());
        self.row_stride = stride;
        self
    }
}

/// Floats from the first element to the last, both included.
fn extent(rows: usize, cols: usize, row_stride: usize, col_stride: usize) -> usize {
    if rows == 0 || cols == 0 { 0 } else { (rows - 1) * row_stride + (cols - 1) * col_stride + 1 }
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
}
