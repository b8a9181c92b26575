//! One update of Muon (Jordan et al. 2024): a matrix moves along its momentum, whose singular values are
//! first brought close to 1. Updates have the size of AdamW's (Liu et al. 2025, arXiv:2502.16982, section
//! 2.2), so AdamW's learning rate serves.

use super::CHUNK;
use offramp_kernels::active;
use offramp_kernels::gemm::{Factors, Matrix, MatrixMut, Product, Threads, Write, gemm};
use offramp_kernels::rayon::prelude::*;
use std::mem::swap;

/// Newton and Schulz's iterations, and the polynomial `a·σ + b·σ³ + c·σ⁵` that each applies to the singular
/// values.
const ITERATIONS: usize = 5;
const A: f32 = 3.4445;
const B: f32 = -4.775;
const C: f32 = 2.0315;
/// The smallest norm that is divided by.
const EPS: f64 = 1e-7;

/// The constants of one update.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Update {
    /// Decay of the momentum.
    pub(crate) momentum: f32,
    pub(crate) learning_rate: f64,
    pub(crate) weight_decay: f64,
    /// Every gradient is multiplied by this first: the clipping factor.
    pub(crate) grad_scale: f32,
}

/// One matrix, `[rows, cols]`, with its gradients and its momentum.
#[derive(Debug)]
pub(crate) struct Parameter<'a> {
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) weights: &'a mut [f32],
    pub(crate) gradients: &'a [f32],
    pub(crate) momentum: &'a mut [f32],
}

/// Buffers for one matrix at a time.
#[derive(Debug)]
pub(crate) struct Scratch {
    x: Vec<f32>,      // [rows, cols]
    next: Vec<f32>,   // as `x`
    gram: Vec<f32>,   // [side, side], the shorter of rows and columns
    change: Vec<f32>, // as `gram`
}

impl Scratch {
    /// Buffers for matrices of at most `values` values, whose shorter side is at most `side`.
    pub(crate) fn new(values: usize, side: usize) -> Self {
        let zeros = |len| vec![0.0; len];
        Self { x: zeros(values), next: zeros(values), gram: zeros(side * side), change: zeros(side * side) }
    }
}

/// Moves the weights of `parameter` and updates its momentum.
pub(crate) fn step(update: &Update, parameter: Parameter<'_>, scratch: &mut Scratch, threads: Threads) {
    let Parameter { rows, cols, weights, gradients, momentum } = parameter;
    let (keep, take) = (update.momentum, (1.0 - update.momentum) * update.grad_scale);
    each(threads, momentum, gradients, |m, g| *m = keep * *m + take * g);
    let x = &mut scratch.x[..weights.len()];
    each(threads, x, momentum, |x, m| *x = keep * m); // Nesterov: the gradient counts once more
    each(threads, x, gradients, |x, g| *x += take * g);
    let x = orthogonalize(rows, cols, scratch, threads);
    let rate = (update.learning_rate * 0.2 * (rows.max(cols) as f64).sqrt()) as f32;
    let decay = (1.0 - update.learning_rate * update.weight_decay) as f32;
    each(threads, weights, x, |w, x| *w = decay * *w - rate * x);
}

/// Brings the singular values of `scratch.x` close to 1, by Newton and Schulz's iteration.
fn orthogonalize(rows: usize, cols: usize, scratch: &mut Scratch, threads: Threads) -> &[f32] {
    let (len, side) = (rows * cols, rows.min(cols));
    let Scratch { x, next, gram, change } = scratch;
    let (mut x, mut next) = (&mut x[..len], &mut next[..len]);
    let (gram, change) = (&mut gram[..side * side], &mut change[..side * side]);
    let product = |alpha| Product { alpha, factors: Factors::F32, threads };
    let squares = x.chunks(CHUNK).map(active().sum_of_squares);
    let scale = (1.0 / squares.sum::<f64>().sqrt().max(EPS)) as f32;
    each(threads, next, x, |next, x| *next = scale * x);
    swap(&mut x, &mut next);
    for _ in 0..ITERATIONS {
        let matrix = Matrix::new(&*x, rows, cols);
        let (left, right) = if rows <= cols { (matrix, matrix.t()) } else { (matrix.t(), matrix) };
        gemm(MatrixMut::new(gram, side, side), Write::Replace, left, right, product(1.0));
        let both = Matrix::new(&*gram, side, side);
        gemm(MatrixMut::new(change, side, side), Write::Replace, both, both, product(C));
        each(threads, change, gram, |change, gram| *change += B * gram);
        each(threads, next, x, |next, x| *next = A * x);
        let both = Matrix::new(&*change, side, side);
        let (left, right) = if rows <= cols { (both, matrix) } else { (matrix, both) };
        gemm(MatrixMut::new(next, rows, cols), Write::Add, left, right, product(1.0));
        swap(&mut x, &mut next);
    }
    x
}

/// Applies `f` to each value of `out` and the value of `x` at the same place.
fn each(threads: Threads, out: &mut [f32], x: &[f32], f: impl Fn(&mut f32, f32) + Sync) {
    let all = |(out, x): (&mut [f32], &[f32])| out.iter_mut().zip(x).for_each(|(out, &x)| f(out, x));
    match threads {
        Threads::One => all((out, x)),
        Threads::All => out.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK)).for_each(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `U · diag(σ) · Vᵀ`, `[rows, cols]`, where `U` and `V` are reflections, each at a vector of its own.
    fn with_singular_values(sigma: &[f64], [rows, cols]: [usize; 2]) -> Vec<f32> {
        let unit = |len: usize, angle: f64| {
            let raw: Vec<f64> = (0..len).map(|i| (1.0 + angle * i as f64).sin()).collect();
            let norm = raw.iter().map(|v| v * v).sum::<f64>().sqrt();
            raw.into_iter().map(|v| v / norm).collect::<Vec<_>>()
        };
        let (u, v) = (unit(rows, 0.7), unit(cols, 1.9));
        let sigma = |i: usize| sigma.get(i).copied().unwrap_or(0.0);
        // (1 − 2uuᵀ) · Σ · (1 − 2vvᵀ), multiplied out; Σv and Σᵀu end with zeros.
        let sigma_v = |i: usize| v.get(i).map_or(0.0, |v| sigma(i) * v);
        let sigma_u = |j: usize| u.get(j).map_or(0.0, |u| sigma(j) * u);
        let inner: f64 = (0..rows).map(|i| u[i] * sigma_v(i)).sum();
        let element = |index: usize| {
            let (i, j) = (index / cols, index % cols);
            let diagonal = if i == j { sigma(i) } else { 0.0 };
            diagonal - 2.0 * u[i] * sigma_u(j) - 2.0 * sigma_v(i) * v[j] + 4.0 * u[i] * inner * v[j]
        };
        (0..rows * cols).map(|index| element(index) as f32).collect()
    }

    /// A matrix's update by the whole of Muon where nothing came before it, at a learning rate of 1.
    fn update_of(gradients: &[f32], [rows, cols]: [usize; 2], threads: Threads) -> Vec<f32> {
        let mut scratch = Scratch::new(gradients.len(), rows.min(cols));
        let (mut weights, mut momentum) = (vec![0.0; gradients.len()], vec![0.0; gradients.len()]);
        let update = Update { momentum: 0.9, learning_rate: 1.0, weight_decay: 0.1, grad_scale: 0.5 };
        let parameter = Parameter { rows, cols, weights: &mut weights, gradients, momentum: &mut momentum };
        step(&update, parameter, &mut scratch, threads);
        assert!(momentum.iter().zip(gradients).all(|(m, g)| (m - 0.05 * g).abs() <= 1e-6 * g.abs()));
        weights
    }

    /// Each singular value goes its own way, by the polynomial, and ends near 1; its two vectors stay.
    #[test]
    fn singular_values_come_close_to_one() {
        for shape in [[24, 60], [60, 24], [24, 24], [1, 7], [7, 1], [400, 700], [700, 400]] {
            let side = shape[0].min(shape[1]);
            let sigma: Vec<f64> = (0..side).map(|i| 3.0 - 2.8 * i as f64 / side as f64).collect();
            let norm = sigma.iter().map(|s| s * s).sum::<f64>().sqrt();
            let [a, b, c] = [A, B, C].map(f64::from);
            let polynomial = |s: f64| a * s + b * s.powi(3) + c * s.powi(5);
            let expected: Vec<f64> =
                sigma.iter().map(|s| (0..ITERATIONS).fold(s / norm, |s, _| polynomial(s))).collect();
            if side < 100 {
                assert!(expected.iter().all(|s| (0.65..1.25).contains(s)), "{shape:?}: {expected:?}");
            }
            let rate = 0.2 * (shape[0].max(shape[1]) as f64).sqrt();
            let expected: Vec<f64> = expected.iter().map(|s| -rate * s).collect();
            let expected = with_singular_values(&expected, shape);
            let found = update_of(&with_singular_values(&sigma, shape), shape, Threads::All);
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 2e-5 * rate as f32, "{shape:?}: {found}, not {expected}");
            }
        }
    }

    #[test]
    fn one_thread_finds_what_all_find() {
        for shape in [[24, 60], [600, 500]] {
            let gradient: Vec<f32> = (0..shape[0] * shape[1]).map(|i| (i as f32 * 0.37).sin()).collect();
            let [one, all] = [Threads::One, Threads::All].map(|threads| update_of(&gradient, shape, threads));
            assert!(one == all, "{shape:?}");
        }
    }

    #[test]
    fn no_gradient_moves_nothing() {
        assert_eq!(update_of(&[0.0; 6], [2, 3], Threads::One), [0.0; 6]);
    }
}
