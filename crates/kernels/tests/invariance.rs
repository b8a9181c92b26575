//! Invariant 4: a token's result does not depend on how many tokens share the call, nor on threads.

use offramp_kernels::{available, linear, pool};

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Many magnitudes, so that any other order of summation would show.
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 2f32.powi((state % 25) as i32 - 12)
        })
        .collect()
}

#[test]
fn every_batch_gives_the_bits_of_one_token() {
    for table in available() {
        for (rows, k) in [(1, 1), (3, 7), (4, 16), (9, 33), (17, 100), (40, 257), (8, 2048)] {
            let tokens = 23;
            let (x, weight) = (numbers(tokens * k, 1), numbers(rows * k, 2));
            let mut alone = vec![0.0; tokens * rows];
            for (x, out) in x.chunks(k).zip(alone.chunks_mut(rows)) {
                (table.product)(x, &weight, k, out);
            }
            for batch in 1..=tokens {
                let mut out = vec![0.0; tokens * rows];
                for (x, out) in x.chunks(batch * k).zip(out.chunks_mut(batch * rows)) {
                    (table.product)(x, &weight, k, out);
                }
                assert_eq!(out, alone, "{} at {batch} tokens, {rows} rows of {k}", table.name);
            }
            for cut in 1..rows {
                let mut out = vec![0.0; rows];
                let (low, high) = out.split_at_mut(cut);
                (table.product)(&x[..k], &weight[..cut * k], k, low);
                (table.product)(&x[..k], &weight[cut * k..], k, high);
                assert_eq!(out, alone[..rows], "{} cut at row {cut} of {rows}", table.name);
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    pool::set_threads(3).expect("the first call of this process");
    let table = offramp_kernels::active();
    for (tokens, rows, k) in [(1, 1500, 300), (2, 900, 257), (7, 640, 129), (65, 300, 100)] {
        let (x, weight) = (numbers(tokens * k, 3), numbers(rows * k, 4));
        let (mut one, mut many) = (vec![0.0; tokens * rows], vec![0.0; tokens * rows]);
        (table.product)(&x, &weight, k, &mut one);
        linear(&x, &weight, k, &mut many);
        assert_eq!(one, many, "{tokens} tokens, {rows} rows of {k}");
    }
}
