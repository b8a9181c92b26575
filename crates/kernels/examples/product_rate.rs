//! How fast this machine multiplies in each format, by number of tokens:
//! `cargo run --release -p offramp-kernels --example product_rate [threads]`.
//!
//! One token is bound by memory, many by arithmetic: the first columns are GB/s of weights, the last GFLOP/s.

use offramp_kernels::bit_linear::Activations;
use offramp_kernels::strips::{StripFormat, pack};
use offramp_kernels::ternary::{self, InputQuantization};
use offramp_kernels::{Job, Operand, TernaryWeight, Weight, bandwidth, bf16, linear, pool};
use std::time::Instant;

const FEATURES: usize = 2048;
/// Matrices in turn, so that none is in a cache when it is read.
const BYTES: usize = 512 << 20;
const TOKENS: [usize; 8] = [1, 2, 4, 6, 8, 12, 16, 128];

fn main() {
    let threads = std::env::args().nth(1).and_then(|threads| threads.parse().ok()).unwrap_or(1);
    pool::set_threads(threads).expect("the first call");
    let probe = bandwidth::Probe::default();
    println!("{threads} threads, {:.1} GB/s; GB/s of weights, then GFLOP/s, by tokens", probe.read() / 1e9);
    println!("{:6}{}", "", TOKENS.map(|tokens| format!("{tokens:>12}")).concat());
    let rows = 4096;
    let values: Vec<f32> =
        (0..rows * FEATURES).map(|i| ((i * 7919 % 2001) as f32 - 1000.0) / 1000.0).collect();
    let narrow: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
    let strips = |format: StripFormat| -> Vec<u8> {
        let mut strips = vec![0; format.bytes(rows, FEATURES).expect("it fits")];
        let each = strips.chunks_exact_mut(format.strip_bytes(FEATURES)).zip(values.chunks(32 * FEATURES));
        each.for_each(|(strip, rows)| pack(format, rows, FEATURES, strip));
        strips
    };
    let repeat = |bytes: usize| BYTES.div_ceil(bytes);
    let f32s = values.repeat(repeat(size_of_val(&values[..])));
    rate("f32", &f32s.chunks(values.len()).map(Weight::F32).collect::<Vec<_>>(), rows);
    drop(f32s);
    let bf16s = narrow.repeat(repeat(size_of_val(&narrow[..])));
    rate("bf16", &bf16s.chunks(narrow.len()).map(Weight::Bf16).collect::<Vec<_>>(), rows);
    drop(bf16s);
    for (name, format) in ["int8", "int4", "q8_0", "q4_0"].into_iter().zip(StripFormat::ALL) {
        let one = strips(format);
        let all = one.repeat(repeat(one.len()));
        let weights: Vec<_> = all.chunks(one.len()).map(|strips| Weight::Strips(format, strips)).collect();
        rate(name, &weights, rows);
    }
    let codes: Vec<i8> = (0..rows * FEATURES).map(|i| (i * 7919 % 2001 % 3) as i8 - 1).collect();
    let mut one = vec![0; ternary::bytes(rows, FEATURES).expect("it fits")];
    let each = one.chunks_exact_mut(ternary::strip_bytes(FEATURES)).zip(codes.chunks(32 * FEATURES));
    each.for_each(|(strip, rows)| ternary::pack(rows, FEATURES, strip));
    let all = one.repeat(repeat(one.len()));
    for input in InputQuantization::ALL {
        let weight = |strips| Weight::Ternary(TernaryWeight { strips, step: 0.01, input });
        let weights: Vec<_> = all.chunks(one.len()).map(weight).collect();
        let name = match (input.activations, input.hadamard) {
            (Activations::Int8, false) => "1.58·8",
            (Activations::Int8, true) => "…8·H",
            (Activations::Int4, false) => "…4",
            (Activations::Int4, true) => "…4·H",
        };
        rate(name, &weights, rows);
    }
    println!("{threads} threads, {:.1} GB/s", probe.read() / 1e9);
}

fn rate(name: &str, weights: &[Weight<'_>], rows: usize) {
    let mut line = format!("{name:6}");
    for tokens in TOKENS {
        let x: Vec<f32> = (0..tokens * FEATURES).map(|i| (i as f32).sin()).collect();
        let (mut operand, mut out) = (Operand::default(), vec![0.0; tokens * rows]);
        let used = if tokens > 16 { &weights[..(weights.len() / 8).clamp(1, 4)] } else { weights };
        let mut seconds = Vec::new();
        for _ in 0..6 {
            let began = Instant::now();
            for &weight in used {
                linear(&x, FEATURES, &mut operand, &mut [Job { weight, out: &mut out }]);
            }
            seconds.push(began.elapsed().as_secs_f64());
        }
        seconds.sort_by(f64::total_cmp);
        let flops = 2.0 * (used.len() * rows * FEATURES * tokens) as f64;
        let bytes: usize = used.iter().map(Weight::bytes).sum();
        let rate = if tokens > 16 { flops / seconds[2] / 1e9 } else { bytes as f64 / seconds[2] / 1e9 };
        line += &format!("{rate:>12.1}");
    }
    println!("{line}");
}
