//! The time of a sum over all ranks (reduce-scatter, then all-gather), for `bench/ranks/all_reduce.py`:
//!
//!     mpirun -n 2 target/release/examples/all_reduce 17 400
//!
//! It prints, for each number of megabytes, the milliseconds of each of ten sums after a first one.

use offramp_ranks::{Ranks, Share};
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let mut ranks = Ranks::of_launcher()?;
    for size in std::env::args().skip(1) {
        let megabytes: usize = size.parse()?;
        let mut values = vec![1.0; megabytes * 1_000_000 / size_of::<f32>()];
        let (count, len) = (ranks.size(), values.len());
        let shares: Vec<Share> =
            (0..count).map(|rank| rank * len / count..(rank + 1) * len / count).collect();
        let mut times = Vec::new();
        for _ in 0..11 {
            ranks.sum(&mut [0.0]); // all begin together
            let began = Instant::now();
            ranks.reduce_scatter(&mut values, &shares);
            ranks.all_gather(&mut values, &shares);
            times.push(format!("{:.2}", began.elapsed().as_secs_f64() * 1e3));
        }
        assert!(values.iter().all(|&value| value == (count as f32).powi(11)), "the sum of all");
        if ranks.is_first() {
            println!("{megabytes} {}", times[1..].join(" "));
        }
    }
    Ok(())
}
