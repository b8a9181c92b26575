//! What ranks promise, with threads as ranks. `bench/ranks` and the command's tests do the same with MPI.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use offramp_ranks::{Ranks, Share, threads, tree};
use std::thread;

/// Runs one function on every rank, and returns what each found.
fn on_all<T: Send>(size: usize, work: impl Fn(&mut Ranks) -> T + Sync) -> Vec<T> {
    thread::scope(|scope| {
        let work = &work;
        let ranks = threads(size).into_iter().map(|mut ranks| scope.spawn(move || work(&mut ranks)));
        let ranks: Vec<_> = ranks.collect();
        ranks.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Values whose sum depends on the order of its additions.
fn values(rank: usize, len: usize) -> Vec<f32> {
    let value = |k: usize| ((rank * 7919 + k * 104_729) % 1009) as f32 * 1.1f32.powi((rank * 5 % 37) as i32);
    (0..len).map(value).collect()
}

/// Shares of different lengths; one is empty.
fn shares(size: usize, len: usize) -> Vec<Share> {
    let cut = |rank: usize| if rank == 0 { 0 } else { (len * rank * rank).div_ceil(size * size) };
    (0..size).map(|rank| cut(rank)..cut(rank + 1)).collect()
}

#[test]
fn each_share_has_the_sum_of_the_tree_and_the_shares_are_everybodys() {
    for (size, len) in [(1, 10), (2, 700_001), (3, 10), (4, 1 << 19), (5, 3)] {
        let mut rows: Vec<f32> = (0..size).flat_map(|rank| values(rank, len)).collect();
        tree(&mut rows, len);
        let found = on_all(size, |ranks| {
            let shares = shares(size, len);
            let mut own = values(ranks.rank(), len);
            ranks.reduce_scatter(&mut own, &shares);
            ranks.all_gather(&mut own, &shares);
            own
        });
        assert!(found.iter().all(|found| *found == rows[..len]), "{size} ranks, {len} values");
    }
}

#[test]
fn sums_and_copies_are_the_same_on_all_ranks() {
    for size in [1, 2, 3, 7] {
        let found = on_all(size, |ranks| {
            let rank = ranks.rank();
            let mut numbers = [rank as f64, 1.0, f64::from(u8::from(rank == 1)) / 0.0];
            ranks.sum(&mut numbers[..2]);
            let mut copied = values(rank, 5);
            ranks.broadcast(&mut copied);
            (numbers[..2].to_vec(), copied, ranks.gather(&[rank as f64]))
        });
        let sum = (size * (size - 1) / 2) as f64;
        let all: Vec<f64> = (0..size).map(|rank| rank as f64).collect();
        assert!(found.iter().all(|found| *found == (vec![sum, size as f64], values(0, 5), all.clone())));
    }
}

#[test]
fn what_is_not_finite_is_so_on_all_ranks() {
    let found = on_all(3, |ranks| {
        let mut sum = [if ranks.rank() == 1 { f64::NAN } else { 1.0 }];
        ranks.sum(&mut sum);
        sum[0].is_nan()
    });
    assert_eq!(found, [true; 3]);
}

#[test]
fn a_rank_that_dies_ends_the_others() {
    let died = thread::spawn(|| {
        thread::scope(|scope| {
            for mut ranks in threads(3) {
                scope.spawn(move || {
                    assert_ne!(ranks.rank(), 1, "it dies");
                    ranks.gather(&[1.0]);
                });
            }
        });
    });
    assert!(died.join().is_err(), "nobody waits forever");
}
