//! How fast this machine multiplies matrices: `cargo run --release -p offramp-kernels --example gemm_rate`.

use offramp_kernels::gemm::{Factors, Matrix, MatrixMut, Product, Threads, Write, gemm};
use std::time::Instant;

/// The three products of a layer's and a head's training: m, n, k, and which operands lie transposed.
const PRODUCTS: [(&str, [usize; 3], [bool; 2]); 10] = [
    ("head forward", [512, 50257, 256], [false, true]),
    ("head d_weight", [50257, 256, 512], [true, false]),
    ("head d_input", [512, 256, 50257], [false, false]),
    ("forward", [2048, 1024, 512], [false, true]),
    ("d_weight", [1024, 512, 2048], [true, false]),
    ("d_input", [2048, 512, 1024], [false, false]),
    ("narrow forward", [2048, 384, 256], [false, true]),
    ("card forward", [2048, 8192, 2048], [false, true]),
    ("card d_weight", [8192, 2048, 2048], [true, false]),
    ("card d_input", [2048, 2048, 8192], [false, false]),
];

fn main() {
    println!("{:16} {:>22} {:>12} {:>12}   GFLOP/s, the best of several", "", "m, n, k", "f32", "bf16");
    for (name, [m, n, k], [left, right]) in PRODUCTS {
        let (a, b, mut out) = (vec![0.5f32; m * k], vec![0.25f32; k * n], vec![0f32; m * n]);
        let mut best = [f64::INFINITY; 2];
        for _ in 0..6 {
            for (best, factors) in best.iter_mut().zip([Factors::F32, Factors::Bf16]) {
                let a = if left { Matrix::new(&a[..], k, m).t() } else { Matrix::new(&a[..], m, k) };
                let b = if right { Matrix::new(&b[..], n, k).t() } else { Matrix::new(&b[..], k, n) };
                let how = Product { alpha: 1.0, factors, threads: Threads::All };
                let began = Instant::now();
                gemm(MatrixMut::new(&mut out, m, n), Write::Replace, a, b, how);
                *best = best.min(began.elapsed().as_secs_f64());
            }
        }
        let [f32, bf16] = best.map(|seconds| 2e-9 * (m * n * k) as f64 / seconds);
        println!("{name:16} {:>22} {f32:>12.0} {bf16:>12.0}", format!("{m}, {n}, {k}"));
    }
}
