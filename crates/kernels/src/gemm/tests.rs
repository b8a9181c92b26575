use super::*;
use crate::dispatch::available;
use half::bf16;

fn numbers(len: usize, seed: usize) -> Vec<f32> {
    (0..len).map(|i| (((i + seed) * 7919 % 1009) as f32 - 504.0) / 251.0).collect()
}

fn how(factors: Factors, threads: Threads) -> Product {
    Product { alpha: 0.5, factors, threads }
}

const KINDS: [Factors; 2] = [Factors::F32, Factors::Bf16];

/// `before + 0.5 · a · b` in `f64`, of factors as they are rounded, and the sum of the terms' sizes.
fn expected(factors: Factors, before: f32, a: &[f32], b: impl Iterator<Item = f32>) -> (f64, f64) {
    let round = |x: f32| f64::from(if factors == Factors::Bf16 { bf16::from_f32(x).to_f32() } else { x });
    let terms: Vec<f64> = a.iter().zip(b).map(|(&a, b)| 0.5 * round(a) * round(b)).collect();
    (f64::from(before) + terms.iter().sum::<f64>(), terms.iter().map(|term| term.abs()).sum())
}

/// Odd sizes around every edge of tiles and blocks, each operand also transposed, strides, both writes.
#[test]
fn every_table_follows_the_definition() {
    let sizes = [
        (7, 5, 9),
        (1, 1, 1),
        (8, 48, 512),
        (9, 49, 33),
        (130, 97, 515),
        (3, 200, 1030),
        (33, 16, 2),
        (65, 95, 31),
    ];
    for (m, n, k) in sizes {
        let (a, b) = (numbers(m * (k + 3), 1), numbers(n * (k + 2), 2));
        let a_at = |i: usize, l: usize| a[i * (k + 3) + l];
        let b_at = |l: usize, j: usize| b[j * (k + 2) + l];
        let a_t: Vec<f32> = (0..k * m).map(|at| a_at(at % m, at / m)).collect();
        let b_t: Vec<f32> = (0..k * n).map(|at| b_at(at / n, at % n)).collect();
        let lefts = [Matrix::new(&a[..], m, k).with_row_stride(k + 3), Matrix::new(&a_t[..], k, m).t()];
        let rights = [Matrix::new(&b[..], n, k).with_row_stride(k + 2).t(), Matrix::new(&b_t[..], k, n)];
        for (table, factors) in available().into_iter().flat_map(|table| KINDS.map(|kind| (table, kind))) {
            for (write, threads) in [(Write::Replace, Threads::One), (Write::Add, Threads::All)] {
                let mut outs = Vec::new();
                for (left, right) in lefts.iter().flat_map(|left| rights.map(|right| (*left, right))) {
                    let mut out = vec![3.0; m * (n + 1)];
                    let target = MatrixMut::new(&mut out, m, n).with_row_stride(n + 1);
                    gemm_with(table, target, write, left, right, how(factors, threads));
                    outs.push(out);
                }
                let name = format!("{} {factors:?} {m} {n} {k}", table.name);
                assert!(outs.iter().all(|out| *out == outs[0]), "{name}: a transpose has the same bits");
                for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                    let before = if write == Write::Add { 3.0 } else { 0.0 };
                    let row = &a[i * (k + 3)..][..k];
                    let (sum, size) = expected(factors, before, row, (0..k).map(|l| b_at(l, j)));
                    let found = f64::from(outs[0][i * (n + 1) + j]);
                    assert!((found - sum).abs() <= 1e-5 * (size + 3.0), "{name}: {found} instead of {sum}");
                }
                assert!((0..m).all(|i| outs[0][i * (n + 1) + n] == 3.0), "the gap between rows is not ours");
            }
        }
    }
}

/// RowFactors alone, on one thread, have the bits that they have among others on all.
#[test]
fn an_element_is_summed_alike_in_every_cut() {
    let (m, n, k) = (61, 75, 1300);
    let (a, b) = (numbers(m * k, 3), numbers(n * k, 4));
    let right = Matrix::new(&b[..], n, k).t();
    for (table, factors) in available().into_iter().flat_map(|table| KINDS.map(|kind| (table, kind))) {
        let mut all = vec![f32::NAN; m * n];
        let left = Matrix::new(&a[..], m, k);
        let target = MatrixMut::new(&mut all, m, n);
        gemm_with(table, target, Write::Replace, left, right, how(factors, Threads::All));
        for row in [0, 8, 60] {
            let mut alone = vec![f32::NAN; n];
            let left = Matrix::new(&a[row * k..][..k], 1, k);
            let target = MatrixMut::new(&mut alone, 1, n);
            gemm_with(table, target, Write::Replace, left, right, how(factors, Threads::One));
            assert_eq!(alone, all[row * n..][..n], "{} {factors:?}", table.name);
        }
    }
}

/// What is rounded before has the bits of what is rounded on the way.
#[test]
fn rounded_operands_are_those_that_packing_rounds() {
    let (m, n, k) = (19, 70, 77);
    let (mut a, b) = (numbers(m * k, 5), numbers(k * n, 6));
    a[..4].copy_from_slice(&[1.0 + 1.0 / 256.0, -1.0 - 3.0 / 256.0, f32::MAX, 1e-40]); // ties, overflow, subnormal
    let rounded = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
    let (a16, b16) = (rounded(&a), rounded(&b));
    for table in available() {
        let product = |left: Matrix<'_>, right: Matrix<'_>| {
            let mut out = vec![0.0; m * n];
            let target = MatrixMut::new(&mut out, m, n);
            gemm_with(table, target, Write::Replace, left, right, how(Factors::Bf16, Threads::One));
            out.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
        };
        let whole = product(Matrix::new(&a[..], m, k), Matrix::new(&b[..], k, n));
        let halves = product(Matrix::new(&a16[..], m, k), Matrix::new(&b16[..], k, n));
        assert_eq!(whole, halves, "{}", table.name);
    }
}

#[test]
fn what_is_not_a_number_stays_visible() {
    for (table, factors) in available().into_iter().flat_map(|table| KINDS.map(|kind| (table, kind))) {
        for bad in [f32::NAN, f32::from_bits(0x7fff_ffff), f32::from_bits(0xff80_0001), f32::INFINITY] {
            let (mut out, a, b) = ([0.0; 2], [1.0, bad, 2.0, 3.0], [1.0, 2.0]);
            let (left, right) = (Matrix::new(&a[..], 2, 2), Matrix::new(&b[..], 2, 1));
            let target = MatrixMut::new(&mut out, 2, 1);
            gemm_with(table, target, Write::Replace, left, right, how(factors, Threads::One));
            assert!(!out[0].is_finite() && out[1] == 4.0, "{} {factors:?} {bad}: {out:?}", table.name);
        }
    }
}

#[test]
#[should_panic(expected = "[2, 2] = [2, 3] · [2, 2]")]
fn shapes_that_do_not_fit_are_refused() {
    let (mut out, a, b) = ([0.0; 4], [0.0; 6], [0.0; 4]);
    let (a, b) = (Matrix::new(&a[..], 2, 3), Matrix::new(&b[..], 2, 2));
    gemm(MatrixMut::new(&mut out, 2, 2), Write::Replace, a, b, how(Factors::F32, Threads::One));
}

#[test]
#[should_panic(expected = "a matrix of [4294967296, 4294967296]")]
fn sizes_that_would_wrap_to_nothing_are_refused() {
    let _ = Matrix::new(&[0f32; 0][..], 1 << 32, 1 << 32);
}

#[test]
fn a_product_over_nothing_is_zero_and_one_of_nothing_writes_nothing() {
    let (mut out, nothing) = ([f32::NAN; 4], &[0f32; 0][..]);
    let how = how(Factors::F32, Threads::All);
    let (a, b) = (Matrix::new(nothing, 2, 0), Matrix::new(nothing, 0, 2));
    gemm(MatrixMut::new(&mut out, 2, 2), Write::Replace, a, b, how);
    assert_eq!(out, [0.0; 4]);
    let (a, b) = (Matrix::new(nothing, 0, 2), Matrix::new(&[1f32; 4][..], 2, 2));
    gemm(MatrixMut::new(&mut out, 0, 2), Write::Replace, a, b, how);
    assert_eq!(out, [0.0; 4]);
}
